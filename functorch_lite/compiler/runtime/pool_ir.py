# SPDX-License-Identifier: MIT
"""The thread pool as LLVM IR: workers, started when first needed, that share the iterations of a loop with its caller.

    void share(ptr pool, ptr function, ptr environment, i64 n, i64 grain)

calls `function(environment, begin, end)` for ranges that make up 0 ... n, and returns when all are done. Whoever is
free takes another range, the caller too, so a worker that the system does not run holds up nobody. Ranges are about
`grain` long or longer, all of one length but the last, and as many for each thread: of seven, two threads would have
four to do, one after another. If `grain` is a multiple of 16, so is their length, so that no vector is cut. The caller
takes the first that is left and workers the last: in loops over the same arrays each has much the same part of them,
which is in its cache still. Where a pool is in use already, or has no workers, the caller does everything itself.

    void share_short(ptr pool, ptr function, ptr environment, i64 n, i64 grain)

does so with a loop that is over before a sleeping worker comes: only if one is awake, or if the last short loop ended
less than `SOON` nanoseconds ago, so that more are likely to come while the workers that are woken now are awake.

    void share_sections(ptr pool, ptr function, ptr environment, i64 n, i64 uneven, ptr idle)

does so for n pieces of work of their own, of which one may take about `uneven` times as long as another; while the
caller waits for others it calls `idle(environment)` now and then, if that is not null.

A pool is a block of 64-bit words (`WORDS`), those that threads write apart in cache lines of their own:

    share        address of `share`, for who has only the block          sections  address of `share_sections`
    state        1: the workers are there        threads   how many share a loop, the caller among them
    work         number of the job in the upper half; in the lower, 16 bits each, ranges taken from the first on and
                 ranges not yet taken: taken by compare-exchange, and the number makes an old word differ from a new one
    pending      ranges not yet done; while there are some the job's words stay
    function ... each   the job
    lock         1 while a job is running, or the workers are stopped
    bell         32 bits: changes with each job; workers sleep on it (a futex)
    sleepers     workers that sleep, or are about to        stop   1: workers leave
    made         workers started                            ids    their pthreads
    alone        until when (nanoseconds of the clock) callers do everything themselves
    owner        the thread whose job is running                      lost   1: its workers are gone
    short        address of `share_short`                            last   when the last short loop ended
    home         1 + the processor that workers keep off              mask   those that this process may use, as bits

Where other processes want the processors too, a worker may be put to sleep with a range in its hands. After a job whose
caller waited for others longer than it worked, none is shared for 8 times as long as it waited. Sections may keep it
waiting for as many times longer as they are uneven; but nobody takes one over, so after them it is 32 times as long.
So it is after short loops, which gain little in comparison with such a wait.

A system may wake a worker on the caller's own processor, where each then runs half of the time while another processor
is idle, until it looks for that some milliseconds later. So where there are `FEW_WORKERS`, they keep off the processor
that the caller was last seen on.

`pause(pool)` waits for the job that runs, ends the workers and keeps the pool from being used until `resume(pool)`: a
process forks with no worker alive, and ends so. A worker spins for about 50 us, then sleeps. Who spins multiplies a
vector now and then: some processors turn wide units off after 10 us without work for them, and are slow for 2 us when
it comes. A handler of a signal that
came in a section may fork in the middle of a job of its own thread, which cannot be waited for: `pause` returns 1 and
does nothing. The child calls `abandon(pool)`: what workers had in hand is never done, and the job ends without it.

Only for Linux: elsewhere there is no futex.
"""

MOST_THREADS = 256
RANGES_PER_THREAD = 4
SPIN = 50_000  # nanoseconds
SOON = 40_000
STACK_BYTES = 4 << 20

_LINE = 8
WORDS = {
    "share": 0, "state": 1, "threads": 2, "sections": 3, "short": 4, "last": 5,
    "work": _LINE, "pending": 2 * _LINE, "function": 3 * _LINE, "environment": 3 * _LINE + 1, "n": 3 * _LINE + 2,
    "each": 3 * _LINE + 3,
    "lock": 4 * _LINE, "alone": 4 * _LINE + 1, "owner": 4 * _LINE + 2, "lost": 4 * _LINE + 3,
    "bell": 5 * _LINE, "sleepers": 6 * _LINE, "stop": 7 * _LINE, "made": 7 * _LINE + 1,
    "home": 7 * _LINE + 2, "ids": 8 * _LINE, "mask": 8 * _LINE + MOST_THREADS,
}
_MASK_WORDS = 16
SIZE = WORDS["mask"] + _MASK_WORDS
FEW_WORKERS = 8

_FUTEX = {"x86_64": 202, "aarch64": 98}  # the number of the system call
_PAUSE = {"x86_64": "@llvm.x86.sse2.pause()", "aarch64": "@llvm.aarch64.hint(i32 1)"}
_DECLARED = {"x86_64": "declare void @llvm.x86.sse2.pause()", "aarch64": "declare void @llvm.aarch64.hint(i32)"}
_WAIT, _WAKE = 128, 129  # of this process alone

_TEXT = """
declare i64 @syscall(i64, ...)
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i64 @pthread_self()
declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)

; nanoseconds of a clock that only goes forward
define internal i64 @now() {
  %time = alloca [2 x i64], align 16
  %failed = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %all = add i64 %whole, %rest
  ret i64 %all
}

; a over b, rounded up
define internal i64 @quotient(i64 %a, i64 %b) {
  %up = add i64 %a, %b
  %top = sub i64 %up, 1
  %found = sdiv i64 %top, %b
  ret i64 %found
}

; wait a moment, at work that keeps the vector units awake: `place` has room for a vector of zeros
define internal void @rest(ptr %place) {
  %zeros = load volatile <LANES x float>, ptr %place, align 64
  %product = fmul <LANES x float> %zeros, %zeros
  store volatile <LANES x float> %product, ptr %place, align 64
  call void PAUSE
  ret void
}

; do ranges of the present job until none is left, from the first or from the last on
define internal void @take(ptr %pool, i1 %from.the.end) {
  %work = word work
  %pending = word pending
  br label %look
look:
  %found = load atomic i64, ptr %work acquire, align 8
  br label %try
try:
  %now = phi i64 [%found, %look], [%seen, %claim]
  %left = and i64 %now, 65535
  %none = icmp eq i64 %left, 0
  br i1 %none, label %out, label %claim
claim:
  %step = select i1 %from.the.end, i64 -1, i64 65535
  %less = add i64 %now, %step
  %pair = cmpxchg ptr %work, i64 %now, i64 %less acq_rel acquire
  %seen = extractvalue {i64, i1} %pair, 0
  %mine = extractvalue {i64, i1} %pair, 1
  br i1 %mine, label %run, label %try
run:
  %function.at = word function
  %function = load ptr, ptr %function.at
  %environment.at = word environment
  %environment = load ptr, ptr %environment.at
  %n.at = word n
  %n = load i64, ptr %n.at
  %each.at = word each
  %each = load i64, ptr %each.at
  %first.up = lshr i64 %now, 16
  %first = and i64 %first.up, 65535
  %after = add i64 %first, %left
  %last = sub i64 %after, 1
  %number = select i1 %from.the.end, i64 %last, i64 %first
  %begin = mul i64 %number, %each
  %far = add i64 %begin, %each
  %end = call i64 @llvm.smin.i64(i64 %far, i64 %n)
  call void %function(ptr %environment, i64 %begin, i64 %end)
  %before = atomicrmw sub ptr %pending, i64 1 acq_rel
  br label %look
out:
  ret void
}

define internal ptr @worker(ptr %pool) {
enter:
  %zeros = alloca <LANES x float>, align 64
  store <LANES x float> zeroinitializer, ptr %zeros, align 64
  %bell = word bell
  %sleepers = word sleepers
  %stop = word stop
  br label %idle
idle:
  %last = phi i32 [0, %enter], [%rung, %serve]
  %start = call i64 @now()
  %until = add i64 %start, SPIN
  br label %spin
spin:
  %k = phi i64 [0, %idle], [%k.next, %quiet], [%k.next, %look]
  %heard = load atomic i32, ptr %bell acquire, align 4
  %new = icmp ne i32 %heard, %last
  br i1 %new, label %wake, label %quiet
quiet:
  call void @rest(ptr %zeros)
  %k.next = add i64 %k, 1
  %turn = and i64 %k.next, 15
  %long = icmp eq i64 %turn, 0
  br i1 %long, label %look, label %spin
look:
  %time = call i64 @now()
  %patient = icmp slt i64 %time, %until
  br i1 %patient, label %spin, label %sleep
sleep:
  %one.more = atomicrmw add ptr %sleepers, i64 1 seq_cst
  %slept = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %bell, i64 WAIT, i32 %last, ptr null, ptr null, i64 0)
  %one.less = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %after = load atomic i32, ptr %bell acquire, align 4
  %changed = icmp ne i32 %after, %last
  br i1 %changed, label %wake, label %sleep
wake:
  %rung = phi i32 [%heard, %spin], [%after, %sleep]
  %told = load atomic i64, ptr %stop acquire, align 8
  %leave = icmp ne i64 %told, 0
  br i1 %leave, label %out, label %serve
serve:
  call void @take(ptr %pool, i1 1)
  br label %idle
out:
  ret ptr null
}

; have the workers keep off the processor that this thread runs on
define internal void @keep_off(ptr %pool) {
  %own = alloca <MASK x i64>, align 16
  %cpu = call i32 @sched_getcpu()
  %here = sext i32 %cpu to i64
  %place = add i64 %here, 1
  %home.at = word home
  %home = load i64, ptr %home.at
  %made.at = word made
  %made = load i64, ptr %made.at
  %moved = icmp ne i64 %home, %place
  %few = icmp sle i64 %made, FEW
  %known = icmp ult i64 %here, MASK_BITS
  %some = icmp sgt i64 %made, 0
  %a = and i1 %moved, %few
  %b = and i1 %known, %some
  %c = and i1 %a, %b
  br i1 %c, label %move, label %out
move:
  store i64 %place, ptr %home.at
  %mask.at = word mask
  %all = load <MASK x i64>, ptr %mask.at, align 8
  store <MASK x i64> %all, ptr %own, align 16
  %number = lshr i64 %here, 6
  %shift = and i64 %here, 63
  %bit = shl i64 1, %shift
  %others = xor i64 %bit, -1
  %word = getelementptr i64, ptr %own, i64 %number
  %old = load i64, ptr %word
  %new = and i64 %old, %others
  store i64 %new, ptr %word
  %ids = word ids
  br label %next
next:
  %k = phi i64 [0, %move], [%k.next, %next]
  %id.at = getelementptr i64, ptr %ids, i64 %k
  %id = load i64, ptr %id.at
  %kept = call i32 @pthread_setaffinity_np(i64 %id, i64 MASK_BYTES, ptr %own)
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %made
  br i1 %more, label %next, label %out
out:
  ret void
}

; ring the bell: workers look for work
define internal void @ring(ptr %pool, i64 %most) {
  %bell = word bell
  %before = atomicrmw add ptr %bell, i32 1 seq_cst
  %sleepers.at = word sleepers
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %wake, label %out
wake:
  %woken = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %bell, i64 WAKE, i64 %most, ptr null, ptr null, i64 0)
  br label %out
out:
  ret void
}

; start the workers, all signals blocked in them; the pool is locked
define internal void @start(ptr %pool) {
  %attributes = alloca [128 x i8], align 16
  %all = alloca [128 x i8], align 16
  %old = alloca [128 x i8], align 16
  %made.at = word made
  %threads.at = word threads
  %ids = word ids
  %threads = load i64, ptr %threads.at
  %workers = sub i64 %threads, 1
  %a = call i32 @pthread_attr_init(ptr %attributes)
  %b = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 STACK)
  %c = call i32 @sigfillset(ptr %all)
  %d = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  store i64 0, ptr %made.at
  %home = word home
  store i64 0, ptr %home
  %mask = word mask
  %g = call i32 @sched_getaffinity(i32 0, i64 MASK_BYTES, ptr %mask)
  br label %next
next:
  %made = load i64, ptr %made.at
  %more = icmp slt i64 %made, %workers
  br i1 %more, label %make, label %done
make:
  %id = getelementptr i64, ptr %ids, i64 %made
  %failed = call i32 @pthread_create(ptr %id, ptr %attributes, ptr @worker, ptr %pool)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %count, label %done
count:
  %more.made = add i64 %made, 1
  store i64 %more.made, ptr %made.at
  br label %next
done:
  %e = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  %f = call i32 @pthread_attr_destroy(ptr %attributes)
  %state = word state
  store i64 1, ptr %state
  ret void
}

define void @share(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %grain) {
  call void @together(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %grain, i64 1, i64 8, ptr null,
                      i64 0)
  ret void
}

define void @share_short(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %grain) {
  call void @together(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %grain, i64 1, i64 32, ptr null,
                      i64 SOON)
  ret void
}

define void @share_sections(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %uneven, ptr %idle) {
  call void @together(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 1, i64 %uneven, i64 32,
                      ptr %idle, i64 0)
  ret void
}

define internal void @together(ptr %pool, ptr %function, ptr %environment, i64 %n, i64 %grain, i64 %patience,
                               i64 %times, ptr %idle, i64 %soon) {
  %zeros = alloca <LANES x float>, align 64
  store <LANES x float> zeroinitializer, ptr %zeros, align 64
  %last.at = word last
  %short = icmp sgt i64 %soon, 0
  %small = icmp sle i64 %n, %grain
  br i1 %small, label %alone, label %take.lock
take.lock:
  %lock = word lock
  %pair = cmpxchg ptr %lock, i64 0, i64 1 acq_rel monotonic
  %got = extractvalue {i64, i1} %pair, 1
  br i1 %got, label %locked, label %alone
alone:
  call void %function(ptr %environment, i64 0, i64 %n)
  br i1 %short, label %note, label %over
note:
  %t3 = call i64 @now()
  store atomic i64 %t3, ptr %last.at monotonic, align 8
  br label %over
over:
  ret void
locked:
  %alone.at = word alone
  %alone.until = load i64, ptr %alone.at
  %t0 = call i64 @now()
  %declined = icmp slt i64 %t0, %alone.until
  br i1 %declined, label %decline, label %look
look:
  br i1 %short, label %ask, label %accept
ask:
  %present.at = word made
  %present = load i64, ptr %present.at
  %asleep.at = word sleepers
  %asleep = load atomic i64, ptr %asleep.at monotonic, align 8
  %awake = icmp slt i64 %asleep, %present
  %last = load atomic i64, ptr %last.at monotonic, align 8
  %since = sub i64 %t0, %last
  %in.a.row = icmp slt i64 %since, %soon
  %pays = or i1 %awake, %in.a.row
  br i1 %pays, label %accept, label %decline
decline:
  store atomic i64 0, ptr %lock release, align 8
  br label %alone
accept:
  %self = call i64 @pthread_self()
  %owner = word owner
  store atomic i64 %self, ptr %owner monotonic, align 8
  %state.at = word state
  %state = load i64, ptr %state.at
  %on = icmp ne i64 %state, 0
  br i1 %on, label %ready, label %begin
begin:
  call void @start(ptr %pool)
  br label %ready
ready:
  %made.at = word made
  %made = load i64, ptr %made.at
  %threads = add i64 %made, 1
  %parts = mul i64 %threads, RANGES
  %even = sdiv i64 %n, %parts
  %least = call i64 @llvm.smax.i64(i64 %even, i64 %grain)
  %most.ranges = call i64 @quotient(i64 %n, i64 %least)
  %rounds = call i64 @quotient(i64 %most.ranges, i64 %threads)
  %whole = mul i64 %rounds, %threads
  %few = icmp slt i64 %most.ranges, %threads
  %dealt = select i1 %few, i64 %most.ranges, i64 %whole
  %vectors = and i64 %grain, 15
  %scalar = icmp ne i64 %vectors, 0
  %unit = select i1 %scalar, i64 1, i64 16
  %equal = call i64 @quotient(i64 %n, i64 %dealt)
  %units = call i64 @quotient(i64 %equal, i64 %unit)
  %each = mul i64 %units, %unit
  %ranges = call i64 @quotient(i64 %n, i64 %each)
  %function.at = word function
  store ptr %function, ptr %function.at
  %environment.at = word environment
  store ptr %environment, ptr %environment.at
  %n.at = word n
  store i64 %n, ptr %n.at
  %each.at = word each
  store i64 %each, ptr %each.at
  %pending = word pending
  store atomic i64 %ranges, ptr %pending monotonic, align 8
  %work = word work
  %word = load atomic i64, ptr %work monotonic, align 8
  %job = lshr i64 %word, 32
  %job.next = add i64 %job, 1
  %upper = shl i64 %job.next, 32
  %word.next = or i64 %upper, %ranges
  store atomic i64 %word.next, ptr %work release, align 8
  %others = sub i64 %ranges, 1
  %most = call i64 @llvm.smin.i64(i64 %others, i64 %made)
  call void @keep_off(ptr %pool)
  call void @ring(ptr %pool, i64 %most)
  call void @take(ptr %pool, i1 0)
  %t1 = call i64 @now()
  br label %wait
wait:
  %k = phi i64 [0, %ready], [%k.next, %again]
  %left = load atomic i64, ptr %pending acquire, align 8
  %finished = icmp eq i64 %left, 0
  br i1 %finished, label %done, label %rest
rest:
  call void @rest(ptr %zeros)
  %k.next = add i64 %k, 1
  %turn = and i64 %k.next, 63
  %long = icmp eq i64 %turn, 0
  br i1 %long, label %give.way, label %again
give.way:
  %yielded = call i32 @sched_yield()
  %lost.at = word lost
  %lost = load i64, ptr %lost.at
  %is.lost = icmp ne i64 %lost, 0
  br i1 %is.lost, label %unlock, label %stay
stay:
  %nothing = icmp eq ptr %idle, null
  br i1 %nothing, label %again, label %look.around
look.around:
  call void %idle(ptr %environment)
  br label %again
again:
  br label %wait
done:
  %t2 = call i64 @now()
  %worked = sub i64 %t1, %t0
  %waited = sub i64 %t2, %t1
  %bearable = mul i64 %worked, %patience
  %held.up = icmp sgt i64 %waited, %bearable
  %while = mul i64 %waited, %times
  %until = add i64 %t2, %while
  %alone.next = select i1 %held.up, i64 %until, i64 0
  store i64 %alone.next, ptr %alone.at
  %kept = load atomic i64, ptr %last.at monotonic, align 8
  %last.next = select i1 %short, i64 %t2, i64 %kept
  store atomic i64 %last.next, ptr %last.at monotonic, align 8
  br label %unlock
unlock:
  %lost.place = word lost
  store i64 0, ptr %lost.place
  store atomic i64 0, ptr %owner monotonic, align 8
  store atomic i64 0, ptr %lock release, align 8
  ret void
}

define i64 @pause(ptr %pool) {
enter:
  %lock = word lock
  %owner.at = word owner
  %self = call i64 @pthread_self()
  br label %try
try:
  %pair = cmpxchg ptr %lock, i64 0, i64 1 acq_rel monotonic
  %got = extractvalue {i64, i1} %pair, 1
  br i1 %got, label %locked, label %busy
busy:
  %owner = load atomic i64, ptr %owner.at monotonic, align 8
  %own = icmp eq i64 %owner, %self
  br i1 %own, label %refuse, label %later
refuse:
  ret i64 1
later:
  %yielded = call i32 @sched_yield()
  br label %try
locked:
  %state.at = word state
  %state = load i64, ptr %state.at
  %on = icmp ne i64 %state, 0
  br i1 %on, label %end, label %out
end:
  %stop = word stop
  store atomic i64 1, ptr %stop release, align 8
  %made.at = word made
  %made = load i64, ptr %made.at
  %ids = word ids
  call void @ring(ptr %pool, i64 2147483647)
  br label %next
next:
  %k = phi i64 [0, %end], [%k.next, %join]
  %more = icmp slt i64 %k, %made
  br i1 %more, label %join, label %gone
join:
  %id.at = getelementptr i64, ptr %ids, i64 %k
  %id = load i64, ptr %id.at
  %joined = call i32 @pthread_join(i64 %id, ptr null)
  %k.next = add i64 %k, 1
  br label %next
gone:
  store atomic i64 0, ptr %stop release, align 8
  store i64 0, ptr %made.at
  store i64 0, ptr %state.at
  br label %out
out:
  ret i64 0
}

define i64 @abandon(ptr %pool) {
  %made.at = word made
  store i64 0, ptr %made.at
  %state.at = word state
  store i64 0, ptr %state.at
  %sleepers.at = word sleepers
  store i64 0, ptr %sleepers.at
  %lost.at = word lost
  store i64 1, ptr %lost.at
  ret i64 0
}

define i64 @resume(ptr %pool) {
  %lock = word lock
  store atomic i64 0, ptr %lock release, align 8
  ret i64 0
}

declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
"""


def module_text(machine: str, lanes_bytes: int) -> str | None:
    """The module for a processor, as `platform.machine()` names it; None where there can be no pool.

    lanes_bytes: of its widest vector register worth using.
    """
    if machine not in _FUTEX:
        return None
    numbers = {
        "FUTEX": _FUTEX[machine], "PAUSE": _PAUSE[machine], "WAIT": _WAIT, "WAKE": _WAKE, "SPIN": SPIN,
        "SOON": SOON, "LANES": lanes_bytes // 4,
        "STACK": STACK_BYTES, "RANGES": RANGES_PER_THREAD, "FEW": FEW_WORKERS, "MASK_BITS": 64 * _MASK_WORDS,
        "MASK_BYTES": 8 * _MASK_WORDS, "MASK": _MASK_WORDS,
    }
    lines = [_DECLARED[machine]]
    for line in _TEXT.split("\n"):
        words = line.split()
        if len(words) == 4 and words[2] == "word":
            line = f"  {words[0]} = getelementptr i64, ptr %pool, i64 {WORDS[words[3]]}"
        for name, number in numbers.items():
            line = line.replace(name, str(number))
        lines.append(line)
    return "\n".join(lines)
