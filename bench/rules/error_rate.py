"""The one rule of the benchmark: 60 s of operations, judged for every 10 s, more than 5 % errors among at least 20."""

from schemas.rule import Rule, error_rate

bench_error_rate = Rule(
    name="bench-error-rate",
    condition=error_rate("*", 0.05, "60s", at_least=20, every="10s"),
    severity="warning",
)
