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
    char *end = memmem(connection->buffer, connection->used, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t length = (size_t)(end - connection->buffer) + 4;
    for (char *line = memchr(connection->buffer, '\n', length); line + 2 < end; line = memchr(line, '\n', length)) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length += strtoul(line + 15, NULL, 10);
            break;
        }
        length = (size_t)(end + 4 - line);
    }
    return connection->used >= length ? length : 0;
}
