# The light side: submit, status, results, db, upkeep, api. No torch.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/textmill
COPY constraints.txt ./
RUN /opt/textmill/bin/python -m pip install --no-cache-dir -c constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY jobs ./jobs
COPY worker ./worker
COPY migrations ./migrations
RUN /opt/textmill/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels .
RUN python -m venv --clear /opt/textmill \
 && /opt/textmill/bin/python -m pip install --no-cache-dir -c constraints.txt \
        "textmill[api,evaluate,otel,postgres] @ file://$(ls /wheels/textmill-*.whl)"

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/textmill textmill
COPY --from=build /opt/textmill /opt/textmill
ENV PATH=/opt/textmill/bin:$PATH PYTHONUNBUFFERED=1
USER textmill
WORKDIR /var/lib/textmill
CMD ["textmill", "--help"]
