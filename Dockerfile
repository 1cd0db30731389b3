FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /smartdns ./cmd/smartdns

FROM scratch
COPY --from=build /smartdns /smartdns
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
HEALTHCHECK --interval=30s --timeout=5s CMD ["/smartdns", "status", "--quiet"]
ENTRYPOINT ["/smartdns"]
CMD ["run"]
