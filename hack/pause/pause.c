// Copyright The Pinnace Authors.
// SPDX-License-Identifier: Apache-2.0

/*
 * pause is the first process of every pod. It holds the pod's namespaces open
 * while containers come and go, buries the processes whose parents died before
 * them, and leaves when it is asked to. It does nothing else.
 *
 *	pause       wait until SIGINT or SIGTERM arrives
 *	pause -v    print the version
 *
 * One copy runs for each pod, so it is written without a C library: a few
 * kilobytes on disk and a few pages in memory, on amd64 and arm64.
 *
 * No handler is ever installed. The signals are blocked, and the kernel hands
 * them over one at a time: blocked signals reach even process 1 of a PID
 * namespace, for which unblocked ones without a handler would be dropped.
 */

#include <asm/signal.h>
#include <asm/unistd.h>

#ifndef PAUSE_VERSION
#define PAUSE_VERSION "unversioned"
#endif

#define WNOHANG 1		/* <linux/wait.h> */
#define EINTR 4			/* <asm/errno.h> */

enum { STDOUT = 1, STDERR = 2 };

/* The kernel's signal set: one bit a signal, the first signal in bit 0. */
typedef unsigned long sigbits;
#define BIT(sig) (1UL << ((sig) - 1))

#if defined(__x86_64__)

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"	/* the outermost frame */
	"	mov %rsp, %rdi\n"	/* argc and argv lie on the stack */
	"	and $-16, %rsp\n"
	"	call start\n");

static long call(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

#elif defined(__aarch64__)

__asm__(".globl _start\n"
	"_start:\n"
	"	mov x29, xzr\n"		/* the outermost frame */
	"	mov x0, sp\n"		/* argc and argv lie on the stack */
	"	bl start\n");

static long call(long nr, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
			 : "memory");
	return x0;
}

#else
#error "pause speaks to the kernel directly, and knows only amd64 and arm64: add start and call for this machine"
#endif

static _Noreturn void leave(int status)
{
	for (;;)
		call(__NR_exit_group, status, 0, 0, 0);
}

#define SAY(fd, text) call(__NR_write, (fd), (long)(text), sizeof(text) - 1, 0)

/* reap collects every child that has ended, and returns once none is left. */
static void reap(void)
{
	long pid;

	do
		pid = call(__NR_wait4, -1, 0, WNOHANG, 0);
	while (pid > 0 || pid == -EINTR);
}

static _Noreturn void wait_for_signals(void)
{
	const sigbits awaited = BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGCHLD);

	if (call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&awaited, 0, sizeof(awaited)) < 0) {
		SAY(STDERR, "pause: cannot block signals\n");
		leave(1);
	}
	/* Children may have ended before the signals were blocked. */
	reap();
	for (;;) {
		switch (call(__NR_rt_sigtimedwait, (long)&awaited, 0, 0, sizeof(awaited))) {
		case SIGCHLD:
			reap();
			break;
		case SIGINT:
		case SIGTERM:
			leave(0);
		case -EINTR:	/* stopped and continued, or traced */
			break;
		default:
			SAY(STDERR, "pause: cannot wait for signals\n");
			leave(1);
		}
	}
}

/* start is called by _start with the stack as the kernel left it: argc, argv…, 0. */
_Noreturn __attribute__((used)) void start(const long *stack)
{
	long argc = stack[0];
	char *const *argv = (char *const *)(stack + 1);

	if (argc == 2 && argv[1][0] == '-' && argv[1][1] == 'v' && argv[1][2] == '\0') {
		SAY(STDOUT, "pause " PAUSE_VERSION "\n");
		leave(0);
	}
	if (argc > 1) {
		SAY(STDERR, "usage: pause [-v]\n");
		leave(2);
	}
	wait_for_signals();
}
