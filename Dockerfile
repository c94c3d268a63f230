# One file, a target per process; the exporters and the scheduler carry no torch.
FROM python:3.11-slim AS base
WORKDIR /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    STETHOS_HOME=/var/lib/stethos STETHOS_LOG=json
# A new volume takes over the owner of what it covers: both folders must belong to the user the processes run as,
# which is also Prometheus' and Alertmanager's, because all of them read the token.
RUN mkdir -p /var/lib/stethos /run/stethos && chown 65534:65534 /var/lib/stethos /run/stethos
COPY constraints.txt pyproject.toml README.md ./

FROM base AS exporters
RUN pip install --constraint constraints.txt ".[exporters]"
COPY exporters exporters
USER 65534:65534
EXPOSE 9400
ENTRYPOINT ["python", "-m", "exporters"]
CMD ["synthetic", "--host", "0.0.0.0", "--token-file", "/run/stethos/token"]

FROM base AS detector
# torch by itself and first: as somebody's dependency it may arrive as another build, gigabytes larger.
RUN pip install torch==2.13.0
RUN pip install --constraint constraints.txt ".[detector]"
COPY kernels kernels
COPY detector detector
ENV NUMBA_CACHE_DIR=/tmp/numba
USER 65534:65534
EXPOSE 9401
ENTRYPOINT ["python", "-m", "detector"]
CMD ["run", "--host", "0.0.0.0", "--token-file", "/run/stethos/token"]

FROM base AS scheduler
RUN pip install --constraint constraints.txt ".[scheduler]"
COPY scheduler scheduler
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["python", "-m", "scheduler"]
CMD ["serve", "--host", "0.0.0.0", "--token-file", "/run/stethos/token"]
