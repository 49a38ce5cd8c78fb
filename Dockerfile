# GPUs: CUDA 13, so the host's NVIDIA driver must be 580 or newer. See docs/docker.md.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# git: a run's manifest names its commit. python3.12-dev and the image's compilers: kernels are built on first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 runner \
    && install -d -o runner -g runner /app /app/results /home/runner/.cache

USER 10001
WORKDIR /app
RUN python3.12 -m venv .venv
ENV PATH=/app/.venv/bin:$PATH

# The list is complete, hence --no-deps; it changes seldom, so this layer is kept.
COPY --chown=runner:runner requirements/vllm.txt requirements/vllm.txt
RUN python -m pip install --no-cache-dir --no-deps -r requirements/vllm.txt

COPY --chown=runner:runner . .
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation -e .

VOLUME ["/app/results"]
ENTRYPOINT ["python", "run_pipeline.py"]
CMD ["--profile", "tiny", "--set", "devices.train=cuda:0", "--set", "devices.eval=auto"]
