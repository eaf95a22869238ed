"""Cases that no test shows, or only in part, and why. ARCHITECTURE.md sums them up."""

from __future__ import annotations

from typing import Final

LEFT_OUT: Final[dict[str, str]] = {
    "A01": "a body that comes behind a refusal is dropped as it comes, up to the deadline of bodies: a connection that is "
    "closed with bytes unread may lose the reply.",
    "A02": "times are not measured: what is compared is a digest of the guess, in a dict and by hmac.compare_digest.",
    "A05": "20 wrong keys instead of 10,000, by a limit of 20.",
    "A09": "admin is off by default and needs a key with its scope; it has no bind address of its own.",
    "A13": "a 422 shows its caller the cell that was wrong, cut to 60 characters; logs, metrics and documents have none. "
    "Core dumps are the operator's (ulimit -c).",
    "A14": "each front counts for itself, and each worker its share, unless they share a store. Redis itself is not run "
    "in the tests: what it answers, late or not at all, is played by a stub.",
    "A15": "20,000 names instead of 10 million, against a bound of 100 callers; the real one is 50,000 and 1,024 buckets.",
    "H01": "under Granian in part: its parser (hyper) reads the body by its chunks and drops the length before the "
    "app is asked, as RFC 9112 (6.3) allows; 200, and the connection is closed, so that nothing behind it is "
    "read.",
    "H02": "under Granian in part: two equal lengths are merged before the app is asked; two that differ get 400.",
    "H04": "under Granian in part: a space behind the size is read, and of junk behind the data of a chunk the app "
    "learns nothing: 200 for what came before it, connection closed. On all fronts leading zeros are no "
    "digits: a size of more than 16 with them is read, one beyond 64 bits refused.",
    "H05": "under Granian the app cannot tell chunks that broke off from a body that is complete, and answers what "
    "came; the caller has left by then.",
    "H06": "under Granian a body that stops coming holds its thread until the caller leaves: its input has no "
    "deadline. Such threads are counted as waiting predictions, so that health is answered and predictions get"
    " 503 at the limit.",
    "H08": "up to 100,000 chunks a body; three repeats instead of 100, within 16 MiB. Granian has no limit but the "
    "body's own.",
    "H09": "50 connections instead of 500, a deadline of 1 s; that health is answered meanwhile is shown, its p99 is "
    "not. gunicorn's sync and gevent workers have no deadlines.",
    "H10": "50 connections instead of 500. Not under Granian, as H06. Under gunicorn a chunked body, or one above 64 "
    "KiB, holds a thread until the deadline.",
    "H11": "uvicorn and gunicorn close; Granian has no deadline for writing: the connection was open after 90 s, with"
    " a buffer of one answer.",
    "H12": "200 connections where 100 are allowed, instead of 10,000.",
    "H15": "under Granian a value with bytes beyond ASCII reaches the app as empty, and cannot be told from an empty "
    "one.",
    "H17": "Granian answers CONNECT as any other method, 405 or 421, without a tunnel, and keeps the connection.",
    "H25": "HTTP/2 is off on every port of HTTP; its preface is refused. That of gRPC is shown in section R.",
    "H28": "Flask does not see that a caller has left while it computes: the answer is computed, then dropped by the "
    "server, and logged as 200. FastAPI drops what has not begun and logs 499.",
    "H31": "the service speaks no TLS, so that there is no TLS port to send plain bytes to.",
    "H22": "Granian hands an app X_Api_Key and X-API-Key under one name, so that either is read there; a key is needed "
    "all the same. A proxy in front of Granian should drop names with underscores, as nginx does.",
    "H23": "gunicorn says 100 Continue by itself before the app is asked; the body is not read.",
    "L04": "In part: the floors are shown; whether an advisory is known (pip-audit) is asked over the network, which "
    "the tests do without",
    "L05": "There is no container image yet",
    "L06": "In part: no Dockerfile, nginx or systemd file is generated yet; shown for names that reach files, folders "
    "and printed commands",
    "C01": "415 on the native routes, Vertex AI and TorchServe; V1, V2 and SageMaker read a body without Content-Type: "
    "their own servers do, and their clients send none.",
    "C02": "as C01: `curl -d` in the manuals of TensorFlow Serving and KServe says that it sends a form. What a browser "
    "can send there unasked carries no key, and its page cannot read the answer.",
    "C09": "gzip and deflate are read, because clients of V2 send them unasked; the other codings get 415.",
    "C10": "10 GB is shown as 9 GB in 9 MB, the most that a body of 10 MiB unpacks to.",
    "J04": "the last one counts, at any depth and with each of the three parsers: none of them tells of the others.",
    "J05": "the limit of 32 levels is fixed, no setting: no dialect has a meaning for more than five.",
    "J06": "the limit of 1 000 digits is fixed, too, and is one of integers; fractions are read in linear time.",
    "T05": "the limits are 1 000 000 rows and 32 million cells, not 10 000 and 5 million: a million rows in one columnar "
    "request is promised elsewhere. Rows are counted once they are read: up to there the size of the body bounds what is "
    "allocated, 10 MiB of int8 being 80 MiB as float64, and 10 MiB of empty lists in JSON 220 MB.",
    "T09": "a record with the same column twice is JSON with a key twice, and J04 says what then; in CSV it is 422.",
    "T15": "there is no sparse input; shapes come in tensors of V2 and in npy.",
    "T19": "the arrays of an answer are measured before they are written, and what was written before it is sent.",
    "O01": "210 requests instead of a million, after 35 that warm up; a label that explodes is shown to be bounded.",
    "O04": "nothing is traced, so nothing is sampled: the trace id of a request is written in its log line, and the "
    "flags of traceparent are not read.",
    "O05": "nothing is sent anywhere: metrics are fetched, and logs go to standard error (W14, W15).",
    "O06": "of a worker that is killed, what it counted in its last second may be lost; two workers, 100 scrapes.",
    "O07": "there is no front proxy yet; Granian answers broken HTTP by itself, with an empty 400 that no log has.",
    "O10": "Granian answers what its parser refuses by itself, and grpc calls of unknown methods: neither tells, and "
    "neither is counted. There is no front proxy yet.",
    "M13": "the override and what differs are shown in GET /models/{name} (library_differences) and the log; there is no "
    "metric of it.",
    "M17": "10 000 versions cost 0.1 s of CPU at each poll, and 8 MB; 1 000 changes a second are not made: a look costs "
    "the same whatever changed.",
    "M18": "EIO and a disk that hangs are injected: no file system is unmounted on the machine of the tests.",
    "M19": "60 reloads instead of 1 000, after 20 that warm up; GPU memory is not looked at.",
    "M20": "the memory that is left is feigned: no test fills the machine's.",
    "M22": "ENOSPC is injected at each call; no disk is filled.",
    "M24": "no power is cut: shown is the order of syncs and the rename.",
    "M28": "no archive is ever unpacked to disk: versions and MLflow models are folders. A skops file is read in memory "
    "(M10).",
    "W04": "in part: one worker under uvicorn has no supervisor, and whoever started it starts it again; with --workers 2 "
    "or more, and under Granian and gunicorn always, a killed worker is replaced. It is logged by gunicorn and uvicorn, "
    "not counted.",
    "W06": "in part: a service of one uvicorn worker says that it has nothing to reload: keys and models are followed as "
    "they change. Settings come from the environment and the command line, which no signal changes; logs go to standard "
    "error.",
    "W08": "in part: shown for uvicorn, which looks every half second and kills after 10 s. gunicorn's own watchdog kills "
    "after TANDEM_TIMEOUT_S and the time of grace (50 s); Granian has none, and leaves it to the liveness probe.",
    "W11": "in part: the worker is killed as the kernel does it (SIGKILL in the middle of a request); no test fills the "
    "memory of the machine.",
    "W13": "no test can forbid threads to root; they are all started before the first request, but for those that decode "
    "large bodies.",
    "W14": "in part: a log on a device without space; temporary files and shared figures are as in the cases of the "
    "model files and of the metrics.",
    "W16": "in part: a random user id is not tried: the interpreter of the tests may lie in a home of their own user.",
    "W17": "in part: no test turns the machine's clock; shown is that nothing which waits or measures asks what time of day "
    "it is. gunicorn itself does, while it ends.",
    "W23": "in part: signals to process 1. Strays of others are reaped by gunicorn alone: run containers with an init "
    "(docker run --init) if something in them leaves any.",
    "W24": "a quota of CPU needs a control group of its own, which the tests may not make.",
    "W18": "in part: the look-ups of the upstream hang, in `tests/service/generation/test_network.py`; nothing else of the "
    "service looks a name up while it answers, but for Redis, where limits are counted in it.",
    "B09": "by `python -m benchmarks.overload`, not by a test: three times the load for a minute, one core for the server. "
    "Every request gets 200 or 503, no answer is another's, memory is bounded; p99 of what is accepted is 1.2 (uvicorn), "
    "1.4 (Granian) and 1.3 (gunicorn) times that at capacity, of refusals 3.9, 8.7 and 4.2 ms. Where a machine's host takes "
    "the cores away, whoever comes meanwhile waits: with 2 to 5 % of a minute taken, p99 of refusals was 30 to 202 ms.",
    "B11": "a giant waits its turn as everybody does, and is cut into slices where that makes no difference; a call of a "
    "model that cannot be cut is not interrupted: small ones wait for it, or get 503 where that is predicted to take "
    "longer than TANDEM_QUEUE_S.",
    "B12": "in part: shown for models kept apart (--isolate) and the GPU. In a web process the caller gets 504 while the "
    "call holds its thread; one that holds the interpreter lock is for the watchdog of W08.",
    "B13": "in part: shown for models kept apart. A crash in a web process ends the worker, as W04 shows.",
    "B15": "an answer of a thread has nobody to go to but its own caller; shown where answers travel, between processes.",
    "B19": "lines that C code prints go past the limit, and are no JSON.",
    "G01": "with a driver that is feigned; a machine with a GPU runs tests/gpu.",
    "G02": "the errors of CUDA are feigned here; a GPU's memory is filled in tests/gpu alone.",
    "G03": "the device's process is killed, stopped and poisoned for real; a device that is lost is feigned.",
    "G04": "with an engine of the CPU that answers otherwise, in the device's process.",
    "G06": "the memory that another process holds is feigned as an engine that does not open.",
    "P05": "in part: bad TLS is shown as a server that speaks none, in `tests/service/generation/test_upstream.py`.",
    "P07": "under Granian, and under a gunicorn of one's own that speaks TLS, a caller who leaves a whole answer, not a "
    "stream, is not noticed until it is written: there is no connection to look at.",
    "P08": "endless streams are ended at 1 MB here (TANDEM_UPSTREAM_MAX_BYTES), not 10 GB.",
    "P14": "in part: there is no front proxy here yet; shown are the headers, the heartbeats, and that a first text comes "
    "while the stream goes on.",
    "P16": "60 slow streams where 60 are allowed, under uvicorn, instead of 1,000; p99 is for `benchmarks`.",
    "S01": "12 WebSockets where 12 are allowed, and 200 handshakes beyond; p99 of predictions is not measured.",
    "S02": "no front inflates anything: compression is not offered, so that a compressed frame breaks the protocol (1002).",
    "S05": "in part: a caller who takes nothing is cut off. Under a uvicorn of one's own, without our protocol, there is no "
    "deadline for writing, and uvicorn closes with 1012 when it stops.",
    "R01": "the limit is that of HTTP (TANDEM_MAX_BODY_BYTES, 10 MiB), not 4 MiB: the same rows fit in over both.",
    "R02": "the limit is the client's, 4 MiB unless it says otherwise; the service sends up to its own limit of answers.",
    "R07": "headers of up to 16 KiB together, as over HTTP.",
    "R08": "200 000 frames of one byte, 20 000 resets, 10 000 pings, 100 000 settings. SETTINGS are acknowledged without "
    "end, at the pace that the client reads; connections are not counted.",
    "R09": "after TANDEM_GRPC_IDLE_S and TANDEM_GRPC_AGE_S, which are tenths of a second in the test.",
    "W20": "2 000 requests to each front in the tests; by `python -m benchmarks.soak --requests 1000000` a million, not ten, "
    "in whose second half uvicorn grew by nothing, gunicorn by 0.1 MiB and Granian by 0.5; not over gRPC. Bound: 6 MiB "
    "above the mean of the second half.",
    "W21": "a day is too long for a test; `python -m benchmarks.soak --requests N` runs as long as one likes, M19 reloads.",
}
