# One image for every node: docker build --build-arg PROFILE=gpu --tag sftlab:0.1.0-gpu .
# The CPU profile takes torch's CPU build; where the default index lacks it, give PyTorch's CPU index too:
#   docker build --build-arg PROFILE=cpu --build-arg PIP_EXTRA_INDEX_URL=INDEX --tag sftlab:0.1.0-cpu .
# Its address stays in the image's history, so that no user, password or token may stand in it.
# CUDA comes with the packages; the node needs NVIDIA's driver and container toolkit alone.
FROM python:3.11.14-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# g++: Triton and FlashInfer compile small launchers on first use. libnuma1: vLLM on the CPU is linked against it.
# Debian keeps one version of a package a release; the release is pinned above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# The shared storage of a cluster belongs to this user and group (deploy/kuberay/cluster.yaml).
RUN groupadd --gid 1000 sftlab && useradd --uid 1000 --gid 1000 --create-home sftlab

WORKDIR /opt/sftlab

ARG PROFILE=gpu
ARG PIP_EXTRA_INDEX_URL=""
COPY requirements/build.lock requirements/${PROFILE}.lock requirements/
# Only files whose hashes are in the locks; DeepSpeed alone comes as source, and is built with the locked setuptools.
RUN python -m pip install --require-hashes --only-binary :all: \
        --no-cache-dir --no-deps --requirement requirements/build.lock \
    && python -m pip install --require-hashes --only-binary :all: --no-binary deepspeed --no-build-isolation \
        --no-cache-dir --no-deps --requirement "requirements/${PROFILE}.lock"

COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY jobs jobs
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation . \
    && python -c "import sftlab.cli.app"

ENV RAY_AUTH_MODE=token \
    RAY_TRAIN_V2_ENABLED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    HF_HUB_OFFLINE=1

USER 1000:1000
CMD ["sftlab", "--help"]
