# The worker: locked dependencies, no compiler, no pip and no root in the image that runs.
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements-worker.lock requirements-build.lock ./
RUN python -m venv /opt/builder \
    && /opt/builder/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
    && python -m venv --without-pip /opt/tocsin \
    && /opt/builder/bin/pip --python /opt/tocsin/bin/python install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements-worker.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY schemas schemas
COPY streams streams
RUN /opt/builder/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /build/wheel . \
    && /opt/builder/bin/pip --python /opt/tocsin/bin/python install --no-cache-dir --no-deps --no-index /build/wheel/*.whl

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tocsin && install -d -o tocsin -g tocsin /data
COPY --from=build /opt/tocsin /opt/tocsin
COPY rules /opt/tocsin/rules
ENV PATH=/opt/tocsin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TOCSIN_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["tocsin"]
CMD ["run"]
