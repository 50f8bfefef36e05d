# Two images: faultd, and with --target faultd-kube what carries out the Experiment objects of a cluster. The static binary and nothing else. The BPF objects are committed, so Go is all that building needs.
FROM docker.io/library/golang:1.26.8 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o /faultd ./cmd/faultd

FROM build AS build-kube
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o /faultd-kube ./cmd/faultd-kube

FROM scratch AS faultd-kube
COPY --from=build-kube /faultd-kube /faultd-kube
ENTRYPOINT ["/faultd-kube"]

FROM scratch
COPY --from=build /faultd /faultd
ENTRYPOINT ["/faultd"]
CMD ["serve"]
