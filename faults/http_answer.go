package faults

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// httpAnswer is what is given in the server's place.
type httpAnswer interface {
	// give writes it, to the end; an error says that the client did not take it.
	give(w http.ResponseWriter) error
}

// httpStatus is an answer of HTTP.
type httpStatus struct {
	code    int
	body    string
	headers headerChanges
}

func (a httpStatus) give(w http.ResponseWriter) error {
	header := w.Header()
	if a.body != "" {
		header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	if !bodiless(a.code) {
		header.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	a.headers.apply(header)
	w.WriteHeader(a.code)
	if _, err := w.Write([]byte(a.body)); err != nil && a.body != "" {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// bodiless says whether answers of a status have no body.
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// httpGRPC is a status of gRPC, which is in the trailers.
type httpGRPC struct {
	code    int
	message string
}

func (a httpGRPC) give(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(a.code))
	if a.message != "" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", url.PathEscape(a.message))
	}
	return nil
}

// isGRPC says whether a request is a call of gRPC.
func isGRPC(r *http.Request) bool {
	kind, is := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return r.ProtoMajor == 2 && is && (kind == "" || kind[0] == '+' || kind[0] == ';')
}

// grpcCodes are in the order of their numbers, from 1.
func grpcCodes() []string {
	return []string{"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
}

func parseGRPCCode(text string) (int, error) {
	if i := slices.Index(grpcCodes(), text); i >= 0 {
		return i + 1, nil
	}
	code, err := strconv.Atoi(text)
	if err != nil || code < 1 || code > len(grpcCodes()) {
		return 0, fmt.Errorf("grpcCode: %q is no error of gRPC; it must be in 1..%d or one of %s", text, len(grpcCodes()), strings.Join(grpcCodes(), ", "))
	}
	return code, nil
}

// httpAbort resets the connection, or the stream.
type httpAbort struct{}

func (httpAbort) give(http.ResponseWriter) error { return nil }
