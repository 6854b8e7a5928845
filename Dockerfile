# The service is the last stage. The stage "training" is for a machine with a GPU:
# docker build --target training --tag chemtwin-training . && docker run --gpus all chemtwin-training model train ...
FROM python:3.11-slim AS source

# pip reads PIP_INDEX_URL and PIP_EXTRA_INDEX_URL: name there the index that has the CPU build of torch.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

WORKDIR /srv/chemtwin
COPY pyproject.toml README.md LICENSE ./
COPY LICENSES LICENSES
COPY app app
COPY index index
COPY model model
COPY training training

# PyPI's torch for Linux has CUDA in it; the driver is the host's
FROM source AS training
COPY benchmarks benchmarks
RUN pip install --no-cache-dir --editable .
VOLUME /surveys
WORKDIR /surveys
ENV PYTHONPATH=/srv/chemtwin
ENTRYPOINT ["chemtwin"]

FROM source
RUN pip install --no-cache-dir ".[postgres]" && useradd --uid 10001 chemtwin && install -d -o chemtwin /data /srv/numba

USER 10001
ENV CHEMTWIN_HOST=0.0.0.0 CHEMTWIN_DATA_DIR=/data MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/srv/numba
WORKDIR /data
# inference is compiled here, not at the first start; in this folder, where the installed modules are found
RUN python -c "from model.bundle import load_model; model = load_model(); model.embed([model.example()])"
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["chemtwin", "serve"]
