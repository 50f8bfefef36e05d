# The image: the static binary and nothing else. The BPF objects are committed, so Go is all that building needs.
FROM docker.io/library/golang:1.26.8 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o /faultd ./cmd/faultd

FROM scratch
COPY --from=build /faultd /faultd
ENTRYPOINT ["/faultd"]
CMD ["serve"]
