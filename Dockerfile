# Paperloop in a container: `docker build --tag paperloop .`, or compose.yaml, which also locks it down.
#
# The base is a major version of Python on Debian, so that `docker build --pull` brings the fixes of both. Who wants the
# very same image again names it by its digest (`docker buildx imagetools inspect python:3.13-slim` tells it):
#   docker build --build-arg BASE=python:3.13-slim@sha256:... --tag paperloop .
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
# The same versions as everywhere else. What is needed and what is Paperloop itself are two steps: a new version of the
# latter does not fetch the former again. pip leaves bytecode beside the modules, so that no start has to compile them.
COPY constraints.txt pyproject.toml ./
RUN python -m venv --without-pip /opt/paperloop \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needed.txt \
    && pip --python /opt/paperloop/bin/python install --no-cache-dir --only-binary :all: \
        --constraint constraints.txt --requirement needed.txt
COPY README.md ./
COPY bot bot
RUN pip --python /opt/paperloop/bin/python install --no-cache-dir --no-deps .

FROM ${BASE}
# A user of its own by number, which no other image gives a meaning to; nothing but the ledger's folder is theirs.
RUN install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/paperloop /opt/paperloop
COPY config/paperloop.toml /srv/config/paperloop.toml
# Every verb reads config/paperloop.toml in the working directory, so that `docker exec NAME paperloop status` and the
# health check mean the same daemon.
WORKDIR /srv
ENV PATH=/opt/paperloop/bin:$PATH \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PAPERLOOP_STORAGE__PATH=/data/paperloop.db
USER 10001:10001
VOLUME /data
STOPSIGNAL SIGTERM
# Healthy is what the daemon itself calls alive: fresh prices, a decided step, a committed transaction. Each check starts
# a Python, which costs more than the daemon does meanwhile, so it is not asked more often.
HEALTHCHECK --interval=2m --timeout=15s --start-period=2m --retries=2 CMD ["paperloop", "healthcheck"]
ENTRYPOINT ["paperloop"]
CMD ["run"]
