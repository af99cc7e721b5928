# The manager's image: one static program, no shell, not root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY config config
COPY controllers controllers
COPY internal internal
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X github.com/pinnace-dev/pinnace/internal/version.Version=${VERSION}" \
    -o /pinnace ./cmd/pinnace

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /pinnace /pinnace
USER 65532:65532
ENTRYPOINT ["/pinnace"]
CMD ["manager"]
