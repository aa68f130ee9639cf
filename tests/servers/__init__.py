"""Real servers for the tests: Apache Kafka and Redis on free ports of the loopback, ended with the test run."""
