# docker build -t poisoning . && docker run --rm -it poisoning            (make repro, stand-in data)
# docker run --rm -it poisoning make test
# docker run --rm -it -v "$PWD/results:/project/results" poisoning make repro PROFILE=quick
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /project
COPY . .
# A copy from a tarball has no history, which records of results name.
RUN git config --global --add safe.directory /project \
    && (git rev-parse HEAD 2>/dev/null || (git init --quiet && git add --all \
        && git -c user.name=docker -c user.email=docker@localhost commit --quiet -m "Image")) \
    && make setup
CMD ["make", "repro"]
