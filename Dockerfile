FROM golang:1.26 AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /faultd ./cmd/faultd

FROM scratch
COPY --from=build /faultd /faultd
ENTRYPOINT ["/faultd"]
CMD ["serve"]
