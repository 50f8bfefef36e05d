package programs

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/lib/pq" // a driver of database/sql
	"golang.org/x/sys/unix"
)

// shopCommand makes this binary a shop, or a database: a server that does things for each answer, and remembers what went wrong.
const shopCommand = "shop"

// shop is such a server.
type shop struct {
	needs needs
	began time.Time

	mu sync.Mutex
	// seen counts what went wrong, as "step: error".
	seen map[string]int
	// held is a connection to Redis that is kept.
	held net.Conn
}

// needs are the addresses and files of whatever a shop needs.
type needs struct {
	// Listen is where it serves.
	Listen string
	// Redis, and by other addresses of the same port Zone and Left.
	Redis, Zone, Left string
	Database          string
	// Replica is one of Redis, and Postgres a PostgreSQL.
	Replica, Postgres string
	API               string
	DNS               string
	// Sink takes pages.
	Sink string
	// Data is the database's file, and Ledger has how many blocks were said to be in it.
	Data, Ledger string
	// Patience is how long it waits for anybody.
	Patience time.Duration
}

// runShop serves until it is killed. /checkout?do=STEP,STEP does steps; what fails is done without, unless it is frail. /seen has what failed.
func runShop(text string) error {
	s := &shop{began: time.Now(), seen: map[string]int{}}
	if err := json.Unmarshal([]byte(text), &s.needs); err != nil {
		return err
	}
	http.HandleFunc("/checkout", s.checkout)
	http.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.seen) // a client that is gone asks nothing
	})
	return http.ListenAndServe(s.needs.Listen, nil)
}

func (s *shop) checkout(w http.ResponseWriter, r *http.Request) {
	frail := r.FormValue("frail") != ""
	for step := range strings.SplitSeq(r.FormValue("do"), ",") {
		err := s.try(step)
		for again := 0; err != nil && !frail && (step == "api" || step == "postgres") && again < 20; again++ {
			err = s.try(step)
		}
		if err != nil && frail {
			http.Error(w, step+": "+words(err), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "sold")
}

// try takes a step, and remembers what went wrong.
func (s *shop) try(step string) error {
	take := map[string]func() error{
		"": func() error { return nil }, "redis": func() error { return s.ask(s.needs.Redis, "PING") }, "zone": func() error { return s.ask(s.needs.Zone, "PING") },
		"left": func() error { return s.ask(s.needs.Left, "PING") }, "set": func() error { return s.ask(s.needs.Redis, "SET key value") },
		"held": s.askHeld, "pool": s.askPool, "dns": s.lookUp, "api": s.askAPI, "database": s.askDatabase, "write": s.write, "page": s.sendPage, "clock": s.lookAtClock,
		"rate": s.lookAtRate, "spin": s.spin, "read": func() error { return s.reads(s.needs.Replica) }, "postgres": s.askPostgres,
	}[step]
	if take == nil {
		return errors.New("there is no such step")
	}
	err := take()
	if err != nil {
		s.mu.Lock()
		s.seen[step+": "+words(err)]++
		s.mu.Unlock()
	}
	return err
}

// words tell an error without its addresses.
func words(err error) string {
	var errno syscall.Errno
	var network net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	}
	return err.Error()
}

func (s *shop) ask(address, question string) error {
	conn, err := s.connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return askOver(conn, question)
}

// reads reads what was written.
func (s *shop) reads(address string) error {
	conn, err := s.connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET key\r\n"); err != nil {
		return err
	}
	answer := bufio.NewReader(conn)
	line, err := answer.ReadString('\n')
	if err == nil && line == "$5\r\n" {
		line, err = answer.ReadString('\n')
	}
	if err == nil && line != "value\r\n" {
		err = fmt.Errorf("it has %q", line)
	}
	return err
}

// askPostgres asks over a new connection.
func (s *shop) askPostgres() error {
	host, port, err := net.SplitHostPort(s.needs.Postgres)
	if err != nil {
		return err
	}
	db, err := sql.Open("postgres", fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), s.needs.Patience)
	defer cancel()
	var two int
	if err := db.QueryRowContext(ctx, "SELECT 1 + 1").Scan(&two); err != nil {
		return err
	}
	if two != 2 {
		return fmt.Errorf("it says %d", two)
	}
	return nil
}

func (s *shop) connect(address string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, s.needs.Patience)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(s.needs.Patience))
}

func askOver(conn net.Conn, question string) error {
	if _, err := io.WriteString(conn, question+"\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.HasPrefix(answer, "-") {
		err = errors.New(strings.TrimSpace(answer))
	}
	return err
}

// askHeld asks over the connection that there is; one that fails is not used again.
func (s *shop) askHeld() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		if s.held, err = net.DialTimeout("tcp", s.needs.Redis, s.needs.Patience); err != nil {
			s.held = nil
			return err
		}
	}
	err = s.held.SetDeadline(time.Now().Add(s.needs.Patience))
	if err == nil {
		err = askOver(s.held, "PING")
	}
	if err != nil {
		s.held.Close()
		s.held = nil
	}
	return err
}

// askPool makes fifteen connections.
func (s *shop) askPool() error {
	for range 15 {
		conn, err := s.connect(s.needs.Redis)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := askOver(conn, "PING"); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) lookUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.needs.Patience)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.needs.DNS)
	}}
	_, err := resolver.LookupHost(ctx, "stock.example.")
	return err
}

func (s *shop) askAPI() error {
	return s.get("http://"+s.needs.API+"/", "payments.default.svc.cluster.local")
}

func (s *shop) askDatabase() error {
	return s.get("http://"+s.needs.Database+"/checkout?do=write&frail=1", "")
}

func (s *shop) get(url, host string) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	return errors.Join(err, fmt.Errorf("status %d, again after %q: %s", response.StatusCode, response.Header.Get("Retry-After"), strings.TrimSpace(string(body))))
}

// block is what the database writes at a time.
const block = 4096

// write writes a block and syncs it; then it is said to be there.
func (s *shop) write() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.needs.Data, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, block)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	ledger, err := os.OpenFile(s.needs.Ledger, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer ledger.Close()
	_, err = ledger.WriteString(".")
	return err
}

// checkCommand makes this binary a check of a database: it ends with 2 if blocks are missing that were said to be there.
const checkCommand = "check-database"

func checkDatabase(dir string) int {
	data, err := os.Stat(filepath.Join(dir, "data", "blocks"))
	ledger, ledgerErr := os.Stat(filepath.Join(dir, "ledger"))
	if err := errors.Join(err, ledgerErr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(data.Size()/block, "blocks of", ledger.Size())
	if data.Size() < block*ledger.Size() {
		return 2
	}
	return 0
}

// sendPage sends one, and waits until they are there.
func (s *shop) sendPage() error {
	conn, err := s.connect(s.needs.Sink)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, pageSize)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

const pageSize = 128 << 10

// lookAtClock compares the time of day with the time that has passed.
func (s *shop) lookAtClock() error {
	if off := time.Now().Round(0).Sub(s.began.Round(0).Add(time.Since(s.began))); off.Abs() > 30*time.Minute {
		return errors.New("the token is expired")
	}
	return nil
}

// lookAtRate compares how fast the clock runs with one that nobody sets.
func (s *shop) lookAtRate() error {
	clock, raw := readClocks()
	time.Sleep(200 * time.Millisecond)
	laterClock, laterRaw := readClocks()
	if share := float64(laterClock-clock) / float64(laterRaw-raw); share > 1.02 {
		return errors.New("the clock runs too fast")
	}
	return nil
}

// readClocks reads both clocks at once.
func readClocks() (clock, raw time.Duration) {
	now := func(id int32) time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(id, &t); err != nil {
			panic(err)
		}
		return time.Duration(t.Nano())
	}
	for {
		before := now(unix.CLOCK_MONOTONIC_RAW)
		clock, raw = now(unix.CLOCK_MONOTONIC), now(unix.CLOCK_MONOTONIC_RAW)
		if raw-before < time.Millisecond {
			return clock, raw
		}
	}
}

// spin needs processor time.
func (s *shop) spin() error {
	for x, i := 1, 0; i < 20_000_000; i++ {
		if x = x*31 + i; x == 0 {
			return errors.New("it cannot be 0")
		}
	}
	return nil
}
