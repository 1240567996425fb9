/* A stand-in for libuldaq: one board, the functions that dtolbus calls, written after the library's documented API.
   Everything else that the package uldaq looks up is made by ulbench.py, and refuses. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK, BAD_DEV = 3, CLAIMED = 5, DEAD = 8, BAD_RANGE = 13, BAD_CHAN = 14, BAD_MODE = 15, ACTIVE = 16,
       NO_CONFIG = 24, BAD_ITEM = 32, BAD_FLAG = 33, BAD_QUEUE = 39, NOT_CONNECTED = 73 };
enum { DIFFERENTIAL = 1, SINGLE_ENDED = 2, NOSCALE = 1, NOCALIBRATE = 2 };
enum { FAULT_NONE, FAULT_ERROR, FAULT_STALL, FAULT_SILENCE, FAULT_FRACTION, FAULT_POLL };

typedef struct { char product[64]; unsigned id, interface; char name[64], serial[64], reserved[512]; } Descriptor;
typedef struct { unsigned channel, mode, range; char reserved[64]; } Element;
typedef struct { long long scans, samples, index; char reserved[64]; } Transfer;

/* What a test sets. */
int standin_model;          /* 0: a DT9837A; 1: a 16 bit board that the library calibrates; 2: no board; 3: one without inputs */
int standin_claimed;        /* another program has it */
int standin_away;           /* so many inventories do not show it */
/* What happens once, at which scan (poll); the board is away for so many inventories then. */
int standin_fault, standin_fault_at, standin_error, standin_away_then;
/* What a test reads. */
int standin_iepe[8], standin_coupling[8], standin_connected, standin_queued;
int standin_scans;          /* of the newest run, whole ones */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t filler;
static int is_filling, is_running, is_silent, failed, channels[8], ranges[8], width, flags_now;
static int queue_size, queue_channels[8], queue_ranges[8];
static long long total, ring_samples;
static double *ring, rate;
static struct timespec begun;

static int bits(void) { return standin_model ? 16 : 24; }
static int inputs(int mode) {
    if (standin_model) return mode == DIFFERENTIAL ? 4 : 8;
    return mode == SINGLE_ENDED ? 4 : 0;
}
static double span(int range) { return range == 11 ? 2.0 : 20.0; } /* BIP1VOLTS, BIP10VOLTS */

static uint32_t code(int channel, uint64_t scan) {
    return (scan * 0x9E3779B97F4A7C15u + channel * 0xDA942042E4DD58B5u) >> (64 - bits());
}

static double converted(int channel, int range, uint64_t scan, int flags) {
    double slope = standin_model ? 1.01 : 1.0, offset = standin_model ? 3.0 : 0.0, value = code(channel, scan);
    if (!(flags & NOCALIBRATE)) value = slope * value + offset;
    if (!(flags & NOSCALE)) value = value * (span(range) / (1 << bits())) - span(range) / 2;
    return value;
}

static int refused(int channel, int mode, int range, int flags) {
    if (!standin_connected) return NOT_CONNECTED;
    if (is_running) return ACTIVE;
    if (!inputs(mode)) return BAD_MODE;
    if (channel < 0 || channel >= inputs(mode)) return BAD_CHAN;
    if (range != 5 && range != 11) return BAD_RANGE;
    return (flags & NOCALIBRATE) && !standin_model ? BAD_FLAG : OK;
}

static void happen(void) { /* the lock is held */
    if (standin_fault == FAULT_NONE || standin_fault == FAULT_STALL || standin_fault == FAULT_POLL) return;
    if (total < (long long)standin_fault_at * width) return;
    if (standin_fault == FAULT_ERROR) {
        is_running = 0;
        failed = standin_error;
        if (failed == DEAD) standin_connected = 0;
        standin_away = standin_away_then;
    } else if (standin_fault == FAULT_SILENCE) {
        is_silent = 1;
    } else {
        ring[(total - 1) % ring_samples] += 0.25;
    }
    standin_fault = FAULT_NONE;
}

static void *fill(void *unused) { /* each sample when it is over, never early */
    for (;;) {
        struct timespec now;
        usleep(1000);
        pthread_mutex_lock(&lock);
        clock_gettime(CLOCK_MONOTONIC, &now);
        double elapsed = (now.tv_sec - begun.tv_sec) + (now.tv_nsec - begun.tv_nsec) * 1e-9;
        while (is_running && !is_silent && total < (long long)(elapsed * rate * width)) {
            int place = total % width;
            ring[total % ring_samples] = converted(channels[place], ranges[place], total / width, flags_now);
            standin_scans = ++total / width;
            happen();
        }
        int is_over = !is_running;
        pthread_mutex_unlock(&lock);
        if (is_over) return unused;
    }
}

int ulGetDaqDeviceInventory(unsigned interfaces, Descriptor *found, unsigned *count) {
    *count = 0;
    if (!(interfaces & 1) || standin_model == 2 || standin_away-- > 0) return OK;
    standin_away = 0;
    memset(found, 0, sizeof *found);
    strcpy(found->product, standin_model ? "USB-1608" : "DT9837A");
    strcpy(found->name, found->product);
    strcpy(found->serial, "01C0FFEE");
    found->interface = *count = 1;
    return OK;
}
int ulCreateDaqDevice(Descriptor of) { return of.interface == 1; }
int ulReleaseDaqDevice(long long device) { return OK; }
int ulGetDaqDeviceDescriptor(long long device, Descriptor *found) {
    unsigned count = 1;
    return ulGetDaqDeviceInventory(1, found, &count);
}
int ulConnectDaqDevice(long long device) {
    if (standin_claimed) return CLAIMED;
    standin_connected = 1;
    queue_size = 0;
    return OK;
}
int ulIsDaqDeviceConnected(long long device, int *is) { *is = standin_connected; return OK; }
int ulDevGetInfo(long long device, unsigned item, unsigned index, long long *found) {
    *found = item == 1 && standin_model != 3;
    return OK;
}
void ulGetErrMsg(unsigned number, char *text) { sprintf(text, "error %u\nof the stand-in", number); }

int ulAInScanStop(long long device) {
    pthread_mutex_lock(&lock);
    is_running = 0;
    pthread_mutex_unlock(&lock);
    if (is_filling) pthread_join(filler, NULL);
    is_filling = 0;
    return OK;
}
int ulDisconnectDaqDevice(long long device) { ulAInScanStop(device); standin_connected = 0; return OK; }

int ulAIGetInfo(long long device, unsigned item, unsigned index, long long *found) {
    switch (item) {
    case 1: *found = bits(); return OK;
    case 3: *found = inputs(index); return OK;
    case 7: *found = 1; return OK;
    case 8: *found = inputs(DIFFERENTIAL) ? 2 : 0; return OK;
    case 9: *found = 2; return OK;
    case 10: case 11: *found = index ? 11 : 5; return OK;
    case 17: *found = !standin_model; return OK;
    }
    return BAD_ITEM;
}
int ulAIGetInfoDbl(long long device, unsigned item, unsigned index, double *found) {
    *found = item == 1000 ? 195.313 : item == 1001 ? 52734.0 : 52734.0 * 4;
    return OK;
}
int ulAISetConfig(long long device, unsigned item, unsigned channel, long long value) {
    if (standin_model) return NO_CONFIG;
    (item == 8 ? standin_iepe : standin_coupling)[channel] = value;
    return OK;
}

int ulAIn(long long device, int channel, unsigned mode, unsigned range, unsigned flags, double *found) {
    int why = refused(channel, mode, range, flags);
    if (standin_fault == FAULT_POLL && standin_fault_at-- <= 0) {
        standin_fault = FAULT_NONE;
        why = standin_error;
    }
    if (!why) *found = converted(channel, range, 1, flags);
    return why;
}
int ulAInLoadQueue(long long device, Element *queue, unsigned count) {
    if (standin_model) return BAD_DEV;
    for (unsigned i = 0; i < count; i++) {
        if (i && queue[i].channel <= queue[i - 1].channel) return BAD_QUEUE;
        queue_channels[i] = queue[i].channel;
        queue_ranges[i] = queue[i].range;
    }
    standin_queued = queue_size = count;
    return OK;
}

int ulAInScan(long long device, int low, int high, unsigned mode, unsigned range, int samples, double *asked,
              unsigned options, unsigned flags, double *data) {
    int why = refused(high, mode, range, flags);
    if (why) return why;
    ulAInScanStop(device);
    width = queue_size ? queue_size : high - low + 1;
    for (int i = 0; i < width; i++) {
        channels[i] = queue_size ? queue_channels[i] : low + i;
        ranges[i] = queue_size ? queue_ranges[i] : (int)range;
    }
    rate = *asked = 12288000.0 / (int)(12288000.0 / *asked + 0.5); /* its clock has a divider */
    ring = data;
    ring_samples = (long long)samples * width;
    flags_now = flags;
    total = failed = is_silent = standin_scans = 0;
    is_running = is_filling = 1;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    return pthread_create(&filler, NULL, fill, NULL);
}
int ulAInScanStatus(long long device, unsigned *status, Transfer *found) {
    pthread_mutex_lock(&lock);
    long long then = total;
    if (standin_fault == FAULT_STALL && total >= (long long)standin_fault_at * width) { /* the caller is held up */
        standin_fault = FAULT_NONE;
        while (total < then + ring_samples) {
            pthread_mutex_unlock(&lock);
            usleep(1000);
            pthread_mutex_lock(&lock);
        }
    }
    *status = is_running;
    found->samples = total;
    found->scans = total / width;
    found->index = total < width ? -1 : (total - total % width - width) % ring_samples;
    int why = is_running ? OK : failed;
    pthread_mutex_unlock(&lock);
    return why;
}
