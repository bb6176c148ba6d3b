/* Sends prepared HTTP requests to loopback and measures the answers. See load/bench/generator.py.
 *
 * generator PORT[,PORT] CONNECTIONS WARM_UP SECONDS RATE REPEATED FILE ANSWERS
 *
 * FILE has requests, each after its length (4 bytes). Without a RATE each connection sends its next request when it has
 * an answer. With a RATE the times of all requests are fixed beforehand (exponential gaps), and a latency counts from the
 * request's own time, also where it waited for a connection. Prints `begin` and `end` around the measured SECONDS, then
 * waits for the answers that are still missing and for the end of its input. Then it writes all answers to the file
 * ANSWERS, as load/bench/answers.py reads them, and prints a line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 8192, CONNECTIONS_MAX = 2048, EVENTS_MAX = 256, STATUS_MAX = 600, DRAIN_SECONDS_MAX = 60, CREATED = 201 };
static const double LATE_SECONDS = 0.001;
static const uint32_t FNV_OFFSET = 2166136261u, FNV_PRIME = 16777619u;

struct connection {
    int fd, status;
    uint32_t body_hash;
    double since, number;
    size_t head_used, body_left;
    char head[HEAD_MAX + 1];
};

/* `since` and `until` are times of our clock, `number` counts the requests from 0. */
struct answer {
    double since, until, status, number, body_hash;
};

static struct connection connections[CONNECTIONS_MAX], *idle[CONNECTIONS_MAX];
static struct answer *answers;
static size_t answer_count, answer_space;
static int idle_count, connection_count, repeated;
static const char *requests, *request, *requests_end;
static long sent, late, backlog_max;
static double rate, due, freed;

static void fail(const char *what) {
    fprintf(stderr, "generator: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double gap(void) { return -log1p(-drand48()) / rate; }

static int has_request(void) {
    if (request == requests_end && repeated) request = requests;
    return request < requests_end;
}

static void send_next(double since) {
    struct connection *c = idle[--idle_count];
    uint32_t length;
    memcpy(&length, request, sizeof length);
    if (write(c->fd, request + sizeof length, length) != (ssize_t)length) fail("write");
    request += sizeof length + length;
    c->since = since;
    c->head_used = 0;
    c->status = 0;
    c->body_hash = FNV_OFFSET;
    c->number = sent++;
}

/* Sends all that is due and that has a connection. */
static void send_due(void) {
    if (rate == 0) {
        while (idle_count && has_request()) send_next(now());
        return;
    }
    for (double at = now(); due <= at && idle_count && has_request(); due += gap()) {
        /* Without a free connection the server is late, not we. */
        if (at - (due > freed ? due : freed) > LATE_SECONDS) late++;
        send_next(due);
    }
}

static void finish(struct connection *c) {
    if (answer_count == answer_space) {
        answer_space = answer_space ? 2 * answer_space : 65536;
        if (!(answers = realloc(answers, answer_space * sizeof *answers))) fail("realloc");
    }
    answers[answer_count++] = (struct answer){c->since, now(), c->status, c->number, c->body_hash};
    if (!idle_count) freed = now();
    idle[idle_count++] = c;
}

/* Only what a request has created must be equal where the request is repeated. To hash the maps would take a core. */
static void hash_body(struct connection *c, const char *part, size_t length) {
    if (c->status != CREATED) return;
    for (size_t n = 0; n < length; n++) c->body_hash = (c->body_hash ^ (unsigned char)part[n]) * FNV_PRIME;
}

static void read_head(struct connection *c, size_t got) {
    c->head_used += got;
    c->head[c->head_used] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->head_used == HEAD_MAX) fail("a head is too long");
        return;
    }
    *end = 0;
    c->status = atoi(c->head + sizeof "HTTP/1.1");
    if (c->status < 200 || c->status >= STATUS_MAX) fail("status");
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    size_t body = length ? strtoul(length + sizeof "\r\ncontent-length:" - 1, NULL, 10) : 0;
    size_t have = c->head_used - (end + 4 - c->head);
    if (have > body) fail("more than one answer");
    c->body_left = body - have;
    hash_body(c, end + 4, have);
}

static void receive(struct connection *c) {
    static char rest[65536];
    for (;;) {
        char *into = c->status ? rest : c->head + c->head_used;
        ssize_t got = read(c->fd, into, c->status ? sizeof rest : HEAD_MAX - c->head_used);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) fail("the server closed a connection");
        if (c->status) c->body_left -= got, hash_body(c, rest, got);
        else read_head(c, got);
        if (c->status && !c->body_left) {
            finish(c);
            return;
        }
    }
}

static void open_connections(char *ports, int epoll) {
    int port[16], count = 0;
    for (char *p = strtok(ports, ","); p && count < 16; p = strtok(NULL, ",")) port[count++] = atoi(p);
    for (int n = 0; n < connection_count; n++) {
        struct connection *c = idle[idle_count++] = &connections[n];
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port[n % count])};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int yes = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
    }
}

static void wait_for_answers(int epoll, double until) {
    struct epoll_event events[EVENTS_MAX];
    double wait = until - now();
    if (wait < 0) wait = 0;
    struct timespec timeout = {(time_t)wait, (long)((wait - (time_t)wait) * 1e9)};
    int count = epoll_pwait2(epoll, events, EVENTS_MAX, &timeout, NULL);
    if (count < 0 && errno != EINTR) fail("epoll_pwait2");
    for (int n = 0; n < count; n++) receive(events[n].data.ptr);
}

static void run_until(int epoll, double end) {
    for (double at = now(); at < end; at = now()) {
        send_due();
        long waiting = rate && has_request() && at > due ? (long)((at - due) * rate) : 0;
        if (waiting > backlog_max) backlog_max = waiting;
        if (!has_request() && idle_count == connection_count) return;
        int is_next_timed = rate && idle_count && has_request();
        wait_for_answers(epoll, is_next_timed && due < end ? due : end);
    }
}

static void write_answers(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file || fwrite(answers, sizeof *answers, answer_count, file) != answer_count || fclose(file)) fail(path);
}

int main(int count, char **arguments) {
    if (count != 9) fail("usage");
    connection_count = atoi(arguments[2]);
    if (connection_count < 1 || connection_count > CONNECTIONS_MAX) fail("connections");
    double warm_up = atof(arguments[3]), seconds = atof(arguments[4]);
    rate = atof(arguments[5]);
    repeated = atoi(arguments[6]);
    int file = open(arguments[7], O_RDONLY), epoll = epoll_create1(0);
    struct stat info;
    if (file < 0 || fstat(file, &info)) fail(arguments[7]);
    request = requests = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (requests == MAP_FAILED) fail("mmap");
    requests_end = requests + info.st_size;
    open_connections(arguments[1], epoll);

    double start = due = now();
    run_until(epoll, start + warm_up);
    puts("begin"), fflush(stdout);
    double began = now();
    run_until(epoll, start + warm_up + seconds);
    double took = now() - began;
    puts("end"), fflush(stdout);
    int was_exhausted = !has_request();
    for (double last = now() + DRAIN_SECONDS_MAX; idle_count < connection_count;) {
        if (now() > last) fail("answers are missing");
        wait_for_answers(epoll, last);
    }

    /* Our parent closes it when it has read our CPU time, which ends with us. */
    while (getchar() != EOF) continue;
    write_answers(arguments[8]);
    printf("{\"began\": %.9f, \"seconds\": %.9f, \"sent\": %ld, \"late\": %ld, \"backlog_max\": %ld, \"exhausted\": %s}\n",
           began, took, sent, late, backlog_max, was_exhausted ? "true" : "false");
    return 0;
}
