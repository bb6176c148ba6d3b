# syntax=docker/dockerfile:1
# One image for the API, the expirer, the migrations and the other commands: docs/deploy/image.md says how to use it.
# It has no HEALTHCHECK: each command needs another check, which compose.yml and the chart define.

FROM python:3.13-slim AS packages
# Without pip: nothing is installed in production.
RUN python -m venv --without-pip /opt/rowlock
# Behind a private certificate authority or package index, pass `--secret id=ca,src=FILE` and `--secret id=pip,src=pip.conf`.
# BuildKit mounts them for this one command and stores them in no layer.
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=secret,id=ca \
    --mount=type=secret,id=pip \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi; \
    pip --python /opt/rowlock/bin/python install --disable-pip-version-check --no-compile \
      --only-binary :all: --require-hashes --requirement /requirements.lock
COPY service /app/service
COPY expirer /app/expirer
# The root file system is read-only in production, so Python compiles here, independently of the files' times.
# The checkout's modes may exclude other accounts.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/rowlock/lib /app \
 && chmod -R a+rX /app

FROM python:3.13-slim
ENV PATH=/opt/rowlock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
COPY --chmod=0644 LICENSE ./
COPY --from=packages /opt/rowlock /opt/rowlock
COPY --from=packages /app ./
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
EXPOSE 3000 3001
CMD ["gunicorn", "--config", "service/gunicorn.conf.py"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Rowlock" \
      org.opencontainers.image.description="Seat reservations that are never sold twice" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
