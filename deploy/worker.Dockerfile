# The machine: takes chunks and runs models. DEVICE=cpu takes torch's small CPU build of the pinned version;
# DEVICE=cuda the usual one, which brings its CUDA libraries along (the host only needs the driver).
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG DEVICE=cpu
WORKDIR /src
RUN python -m venv /opt/textmill
COPY constraints.txt ./
RUN /opt/textmill/bin/python -m pip install --no-cache-dir -c constraints.txt hatchling
# torch first, in a layer of its own: it is most of the image and changes least.
RUN case "$DEVICE" in \
        cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
        cuda) index="" ;; \
        *) echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2; exit 1 ;; \
    esac \
 && /opt/textmill/bin/python -m pip install --no-cache-dir $index -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY jobs ./jobs
COPY worker ./worker
COPY migrations ./migrations
RUN /opt/textmill/bin/python -m pip install --no-cache-dir --no-build-isolation -c constraints.txt '.[worker,postgres]'

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/textmill textmill
COPY --from=build /opt/textmill /opt/textmill
ENV PATH=/opt/textmill/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1
USER textmill
WORKDIR /var/lib/textmill
CMD ["textmill", "worker"]
