/* An HTTP/1.1 server for benchmarks: it answers every POST with one fixed message, and costs a few microseconds.
 *
 *   server MEDIAN_MS SIGMA
 *
 * listens on a free port of 127.0.0.1, prints the port, and answers each POST after a delay: MEDIAN_MS
 * milliseconds, times exp(SIGMA * z) with z from the standard normal distribution. A path with
 * "chat/completions" in it is answered in OpenAI's shape, all others in that of the Messages API. GET tells
 * how many requests have come and how many answers have gone out. It ends when its parent does.
 *
 * One thread, epoll, a binary heap of due answers. Clients may not pipeline, and must send Content-Length.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, MAX_EVENTS = 512, MAX_REQUEST = 1 << 22, ID_DIGITS = 24 };

static const char MESSAGE[] =
    "{\"id\":\"msg_%0*llx\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"abliterated-model\","
    "\"content\":[{\"type\":\"text\",\"text\":\"Stonehenge is a prehistoric monument in Wiltshire, England, "
    "consisting of a ring of standing stones dating back to around 3000 BCE.\"}],\"stop_reason\":\"end_turn\","
    "\"stop_sequence\":null,\"usage\":{\"input_tokens\":14,\"output_tokens\":32},"
    "\"remaining_credits\":1000000000,\"estimated_credits_used\":1,\"estimated_cost_usd\":0.00023}";

static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-%0*llx\",\"object\":\"chat.completion\",\"created\":1760000000,"
    "\"model\":\"abliterated-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"Stonehenge is a prehistoric monument in Wiltshire, England, consisting of a ring of standing "
    "stones dating back to around 3000 BCE.\"},\"finish_reason\":\"stop\"}],\"usage\":"
    "{\"prompt_tokens\":14,\"completion_tokens\":32,\"total_tokens\":46}}";

typedef struct {
    char *buffer; /* NULL: not open */
    size_t size, used;
    uint32_t generation; /* tells a due answer's connection from a later one with the same number */
    int completion;      /* the request that is being answered is in OpenAI's shape */
} Connection;

typedef struct {
    uint64_t due;
    uint32_t generation;
    int fd;
} Answer;

static Connection connections[MAX_CONNECTIONS];
static Answer heap[MAX_CONNECTIONS];
static size_t waiting;
static unsigned long long requests, answers;
static double median_ns, sigma;
static int poller;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t delay_ns(void) {
    if (sigma == 0) return (uint64_t)median_ns;
    double u = drand48(), v = drand48();
    double z = sqrt(-2 * log(1 - u)) * cos(2 * M_PI * v); /* Box and Muller */
    return (uint64_t)(median_ns * exp(sigma * z));
}

static void push(Answer answer) {
    size_t at = waiting++;
    while (at > 0 && heap[(at - 1) / 2].due > answer.due) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = answer;
}

static Answer pop(void) {
    Answer first = heap[0], last = heap[--waiting];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < waiting; at = child) {
        if (child + 1 < waiting && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

static void close_connection(int fd) {
    free(connections[fd].buffer);
    connections[fd].buffer = NULL;
    connections[fd].generation++;
    close(fd);
}

static void send_json(int fd, const char *body, int length) {
    char out[2048];
    int head = snprintf(out, sizeof out,
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", length);
    memcpy(out + head, body, (size_t)length);
    if (send(fd, out, (size_t)(head + length), MSG_NOSIGNAL) != head + length) close_connection(fd);
}

static void send_answer(int fd) {
    char body[1024];
    const char *format = connections[fd].completion ? COMPLETION : MESSAGE;
    send_json(fd, body, snprintf(body, sizeof body, format, ID_DIGITS, ++answers));
}

static void send_counts(int fd) {
    char body[256];
    send_json(fd, body,
              snprintf(body, sizeof body, "{\"requests\":%llu,\"answers\":%llu,\"seconds\":%.6f,\"cpu_seconds\":%.6f}",
                       requests, answers, (double)now_ns() / 1e9, (double)clock() / CLOCKS_PER_SEC));
}

/* The length of the request at the start of the buffer, 0 where it isn't whole yet. */
static size_t whole_request(const Connection *connection) {
    char *start = connection->buffer, *end = memmem(start, connection->used, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head = (size_t)(end + 4 - start), body = 0;
    for (char *line = start; line < end; line = (char *)memchr(line, '\n', head - (size_t)(line - start)) + 1)
        if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
    return connection->used >= head + body ? head + body : 0;
}

static void take_request(int fd, size_t length) {
    Connection *connection = &connections[fd];
    char *line_end = memchr(connection->buffer, '\r', length);
    int is_get = connection->buffer[0] == 'G';
    connection->completion =
        memmem(connection->buffer, (size_t)(line_end - connection->buffer), "chat/completions", 16) != NULL;
    connection->used -= length;
    memmove(connection->buffer, connection->buffer + length, connection->used);
    if (is_get) {
        send_counts(fd);
        return;
    }
    requests++;
    if (median_ns == 0)
        send_answer(fd);
    else
        push((Answer){now_ns() + delay_ns(), connection->generation, fd});
}

static void read_from(int fd) {
    Connection *connection = &connections[fd];
    if (connection->used == connection->size) {
        char *larger = connection->size < MAX_REQUEST ? realloc(connection->buffer, connection->size *= 2) : NULL;
        if (larger == NULL) {
            close_connection(fd);
            return;
        }
        connection->buffer = larger;
    }
    ssize_t got = recv(fd, connection->buffer + connection->used, connection->size - connection->used, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        close_connection(fd);
        return;
    }
    connection->used += (size_t)got;
    size_t length = whole_request(connection);
    if (length > 0) take_request(fd, length);
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MAX_CONNECTIONS || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[fd].size = 4096;
        connections[fd].used = 0;
        connections[fd].buffer = malloc(connections[fd].size);
        if (connections[fd].buffer == NULL) die("malloc");
    }
}

static void answer_what_is_due(void) {
    uint64_t now = now_ns();
    while (waiting > 0 && heap[0].due <= now) {
        Answer answer = pop();
        const Connection *connection = &connections[answer.fd];
        if (connection->buffer != NULL && connection->generation == answer.generation) send_answer(answer.fd);
    }
}

static int milliseconds_to_wait(void) {
    if (waiting == 0) return -1;
    uint64_t now = now_ns();
    return heap[0].due <= now ? 0 : (int)((heap[0].due - now) / 1000000 + 1);
}

static int listen_on_free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 65535) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: server MEDIAN_MS SIGMA\n");
        return 2;
    }
    median_ns = atof(argv[1]) * 1e6;
    sigma = atof(argv[2]);
    srand48(1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    raise_file_limit();
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) die("epoll_create1");
    int listener = listen_on_free_port();
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, milliseconds_to_wait());
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener);
            else
                read_from(events[i].data.fd);
        }
        answer_what_is_due();
    }
}
