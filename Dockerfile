# docker build -t eenet . && docker run --rm -v "$PWD:/work" eenet pipeline --config digits/resnet20
FROM python:3.11-slim
RUN useradd --create-home eenet && mkdir /work && chown eenet /work
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir "/source[text,seg]" && rm -r /source
USER eenet
WORKDIR /work
ENTRYPOINT ["eenet"]
