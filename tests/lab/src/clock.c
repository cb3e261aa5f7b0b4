/* Preloaded into an agent: its time of day is ahead of the host's by the seconds that the file $LABORATORY_CLOCK says. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long ahead(void)
{
	const char *path = getenv("LABORATORY_CLOCK");
	char text[32] = "";
	int before = errno;
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file >= 0) {
		if (read(file, text, sizeof text - 1) < 0)
			text[0] = 0;
		close(file);
	}
	errno = before;
	return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int error = syscall(SYS_clock_gettime, clock, time);

	if (!error && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		time->tv_sec += ahead();
	return error;
}
