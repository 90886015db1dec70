# The server on CPUs. Build it with `docker build --tag uniface-serve .`; docs/how-to/serve.md says
# how it is run. Versions are those of the constraints, which the tests have run with.
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY constraints-py313.txt ./
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY configs configs
COPY uniface_jax uniface_jax
RUN pip install --no-cache-dir --constraint constraints-py313.txt ".[demo,export,serve]"

FROM python:3.13-slim-bookworm
# The kernels are compiled where they run, for its processor. Debian's own index says which g++.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin faces
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    JAX_PLATFORMS=cpu \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/faces
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# A token (UNIFACE_TOKEN) and --hosts are needed, since others reach it.
ENTRYPOINT ["python", "-m", "uniface_jax.serve", "--host=0.0.0.0"]
