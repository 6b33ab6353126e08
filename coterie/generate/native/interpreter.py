"""Walking a program: stages in order, the tasks of each shared by whoever is there.

Every stage has a ticket counter and a counter of tasks done. Threads draw tickets until there are
none, then wait until all tasks are done: a thread that comes late, or not at all, is waited for
only while it holds a task, so that a busy neighbour costs no more than what it takes. Both counters
carry the number of the step in their upper half; a thread that slept through a step notices.
"""

from numba.np.numpy_support import carray

from coterie.generate.native.compile import entry_point
from coterie.generate.native.kernels.choose import ON, RECORD
from coterie.generate.native.machine import (
    add_word,
    call_at,
    give_way,
    kernel,
    pause,
    set_word,
    swap_word,
    word,
    words_at,
)
from coterie.generate.native.operations import HEADER, NUMBERS, WORDS

LINE, MOST_THREADS = 8, 64
STOP, PARKED, COUNTERS = LINE, 2 * LINE, (2 + MOST_THREADS) * LINE
"""Words of the control block, each in a cache line of its own: the step, whether to stop, which
threads are parked; then two lines per stage."""
_SPINS, _YIELDS = 200, 200
_IDLE_SPINS, _IDLE_YIELDS = 4000, 300
_GONE = -1


@kernel
def tasks_of(op):
    """Return how many tasks the operation at an address has at present."""
    head = carray(words_at(op), HEADER)
    return head[1] * carray(words_at(head[2]), 1)[0] if head[2] else head[1]


@kernel
def claim(ticket, step, total):
    """Draw a ticket; return `total` or more where there are none left, below 0 where it is late."""
    while True:
        value = word(ticket)
        if value >> 32 != step:
            return _GONE
        number = value & 0xFFFFFFFF
        if number >= total or swap_word(ticket, value, value + 1):
            return number


@kernel
def finished(done, step, total):
    """Wait until a stage is done; return whether the step is still under way."""
    spins = 0
    while True:
        value = word(done)
        if value >> 32 != step:
            return False
        if value & 0xFFFFFFFF >= total:
            return True
        spins += 1
        if spins < _SPINS:
            pause()
        else:
            give_way()


@kernel
def perform(operations, numbers, number, task, thread):
    """Do one task of a stage that begins with an operation."""
    op = operations + 8 * WORDS * number
    while task >= tasks_of(op):
        task -= tasks_of(op)
        number += 1
        op = operations + 8 * WORDS * number
    head = carray(words_at(op), HEADER)
    part, item = task % head[1], task // head[1]
    call_at(head[0], op + 8 * HEADER, numbers + 8 * NUMBERS * number, part, item, thread)


@kernel
def walk(operations, numbers, stages, count, control, step, thread):
    """Take part in one step."""
    bounds = carray(words_at(stages), 2 * count)
    for stage in range(count):
        first, total = bounds[2 * stage], 0
        for number in range(first, bounds[2 * stage + 1]):
            total += tasks_of(operations + 8 * WORDS * number)
        ticket = control + 8 * (COUNTERS + 2 * LINE * stage)
        done = ticket + 8 * LINE
        while True:
            task = claim(ticket, step, total)
            if task < 0:
                return
            if task >= total:
                break
            perform(operations, numbers, first, task, thread)
            add_word(done, 1)
        if not finished(done, step, total):
            return


@kernel
def begin_step(control, count):
    """Open the next step to whoever looks for one."""
    step = word(control) + 1
    for stage in range(count):
        ticket = control + 8 * (COUNTERS + 2 * LINE * stage)
        set_word(ticket, step << 32)
        set_word(ticket + 8 * LINE, step << 32)
    set_word(control, step)


@entry_point
def announce(control, count, threads):
    """Open the next step; return which helpers must be woken, one bit each."""
    begin_step(control, count)
    sleeping = 0
    for thread in range(1, threads):
        if swap_word(control + 8 * (PARKED + LINE * thread), 1, 0):
            sleeping |= 1 << thread
    return sleeping


@entry_point
def take_part(operations, numbers, stages, count, control, seen, thread):
    """Walk through steps after `seen`; return the latest.

    Thread 0 walks to the end of the step that was announced. Helpers stay for further steps, and
    return after a while without one; they are then marked as parked, and woken by whoever announces
    the next.
    """
    idle, parked = 0, control + 8 * (PARKED + LINE * thread)
    while not word(control + 8 * STOP):
        step = word(control)
        if step != seen:
            walk(operations, numbers, stages, count, control, step, thread)
            if thread == 0:
                return step
            seen, idle = step, 0
            continue
        idle += 1
        if idle < _IDLE_SPINS:
            pause()
        elif idle < _IDLE_SPINS + _IDLE_YIELDS:
            give_way()
        else:
            set_word(parked, 1)
            if word(control) == seen or not swap_word(parked, 1, 0):
                return seen
    return seen


@kernel
def any_on(records, entries):
    """Return whether any text goes on."""
    going = 0
    for entry in range(entries):
        going += word(records + 8 * (RECORD * entry + ON))
    return going > 0


@entry_point
def take_steps(operations, numbers, stages, count, control, records, entries, most):
    """Walk to the end of the step that was announced, and through further ones.

    They follow as long as any text goes on. A helper that sleeps is not woken for them; the others
    do its part.
    """
    for done in range(most):
        if done:
            if not any_on(records, entries):
                return
            begin_step(control, count)
        walk(operations, numbers, stages, count, control, word(control), 0)
