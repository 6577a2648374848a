# One image for worker, serve, retrain and every other command.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /usr/src/driftline

# The exact wheels of the lock, checked by hash. NVIDIA's library (a dependency of xgboost's wheel, hundreds of
# megabytes) serves training on several GPUs only; ours trains on the CPU.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock \
  && pip uninstall --yes nvidia-nccl-cu12

COPY pyproject.toml README.md LICENSE driftline.py ./
COPY native native
COPY detectors detectors
COPY streams streams
COPY serving serving
COPY retrain retrain
COPY stack stack
# The compiler is there for the inner loops only, and gone from the layer.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
  && pip install --no-deps --no-build-isolation . \
  && python -c 'from native.library import library; assert library(), "the inner loops were not compiled"' \
  && apt-get purge --yes --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/*

COPY ops/docker/entrypoint.sh /usr/local/bin/entrypoint
# A volume that is mounted here for the first time takes the folder's owner.
RUN useradd --system --uid 10001 --home-dir /var/lib/driftline --create-home driftline \
  && install -d -o driftline -g driftline /var/lib/driftline/models
USER driftline
WORKDIR /var/lib/driftline
CMD ["driftline", "--help"]
