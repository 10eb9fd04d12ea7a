"""More processes that give ready answers: ``PROXPI_WORKERS``.

Theory of operation
-------------------
What decides anything stays in one process, the *main* one: it asks upstream, keeps pages and files,
knows what is fresh and what has to go. So with any number of workers there is one request upstream
for a page or a file, one cap, one list of what was forgotten, as there are without any. What takes
the time of a busy proxpi is something else: giving the same answers again
(:mod:`proxpi.web.known`). That is all that a *worker* does (:mod:`proxpi.workers.worker`).

The listening sockets are shared, and workers accept. A worker knows answers, as the main process
told it. At what is no question that it has an answer to it looks no further: it hands the
connection over, with what came on it and what was not sent on it yet, and the main process goes on
as if it had been its own. There, a question that has an answer is no work for the main process: it
hands the connection to a worker. So a connection moves when what is asked on it is another
process's work, and answers to new questions cost what they always did.

Between the two lies a pair of sockets for packets, with descriptors attached
(:mod:`proxpi.workers.wire`): what is said there is in :mod:`proxpi.workers.packets`. Beside it lies
a *board* of numbers in shared memory (:mod:`proxpi.workers.board`): which answers hold, how often
each was given, how many connections there are. An answer that is dropped is crossed out on the
board before the main process goes on, so whoever is told that something is forgotten is told the
truth, about all processes, without one of them being asked.

A worker that ends is replaced, and takes nothing with it but the connections that it had, and what
it was about to tell the log; one
whose main process is gone ends at once. (:mod:`proxpi.workers.crew` is the main process's side.)

The other ways to share were measured (``benchmarks/sharing.py``): a lock in the cache folder and a
look at it, or a question to the main process, for each answer, cost as much as the answer itself or
more, where the board costs next to nothing; and each would need to say, in a second way, all that
the main process knows of flights, outages and room.
"""
