# messenger-probe: one static binary in an empty image.
#   docker build -t messenger-probe .
# Go runs on the building machine and compiles for the wanted one; nothing is
# emulated. GO_IMAGE may be pinned to a digest.
ARG GO_IMAGE=golang:1.26-bookworm
FROM --platform=${BUILDPLATFORM} ${GO_IMAGE} AS build
ARG TARGETOS=linux
ARG TARGETARCH=amd64
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} GOFLAGS=-buildvcs=false \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/messenger-probe ./cmd/messenger-probe \
    && mkdir /out/state

# Nothing but the program: no shell, no package, no user database. The roots it
# trusts and the time zones are inside it.
FROM scratch
ARG VERSION=devel
ARG REVISION=unknown
LABEL org.opencontainers.image.title="messenger-probe" \
      org.opencontainers.image.description="Tells from inside a country's network whether WhatsApp, Telegram and MAX can be reached" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/messenger-probe/messenger-probe" \
      org.opencontainers.image.documentation="https://github.com/messenger-probe/messenger-probe/blob/main/README.md" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/messenger-probe /messenger-probe
# A volume that is put here for state_dir takes over who may write to it.
COPY --from=build --chown=65534:65534 /out/state /var/lib/messenger-probe
USER 65534:65534
EXPOSE 9770
HEALTHCHECK --interval=60s --timeout=5s --start-period=30s CMD ["/messenger-probe", "healthcheck"]
ENTRYPOINT ["/messenger-probe"]
CMD ["run"]
