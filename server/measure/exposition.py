"""What was measured, as Prometheus reads it: of this process alone, or of all workers of the node together.

Workers share their numbers through files as `prometheus_client`'s multiprocess mode has them, written twice a second:
its own counters would write at each event, and cost more than answering a heartbeat. A worker that is started in the
place of another goes on from its numbers, so no counter falls.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.measure.instruments import Counter, Gauge, Histogram, Together
from server.measure.measured import Measured

# What a parent that starts several workers tells each of them.
DIRECTORY, WORKER = "PROMETHEUS_MULTIPROC_DIR", "PRESENCE_WORKER"

# Of the process's own numbers, those that make sense of several together.
_OF_PROCESSES: dict[str, Together] = {
    "process_resident_memory_bytes": "livesum",
    "process_virtual_memory_bytes": "livesum",
    "process_open_fds": "livesum",
    "process_max_fds": "livemin",
    "process_start_time_seconds": "livemin",
}
_CPU = "process_cpu_seconds_total"


class _Numbers(Protocol):
    """What of `MmapedDict`, which has no types, is used here."""

    def read_value(self, key: str) -> tuple[float, float]: ...

    def write_value(self, key: str, value: float, timestamp: float) -> None: ...

    def close(self) -> None: ...


_open: Callable[[str], _Numbers] = MmapedDict
_collector: Callable[[None, str], Collector] = MultiProcessCollector
_forget: Callable[[int, str], None] = mark_process_dead
_written_as: Callable[[float], str] = floatToGoString


def forget_worker(directory: str, worker: int) -> None:
    """A worker has died: what it held is gone, what it counted is not."""
    _forget(worker, directory)


def alone(measured: Measured) -> Iterator[Metric]:
    """The metrics of this process, which is all there is."""
    for each in measured.instruments():
        yield _counter(each) if isinstance(each, Counter) else _histogram(each)
    for gauge in measured.gauges:
        yield GaugeMetricFamily(gauge.name, gauge.meaning, gauge.read())
    yield from _process()


def _counter(counter: Counter) -> Metric:
    family = CounterMetricFamily(counter.name, counter.meaning, labels=counter.labels)
    for values, cell in counter.cells.items():
        family.add_metric(values, cell.value)
    return family


def _histogram(histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.meaning, labels=histogram.labels)
    for values, buckets in histogram.cells.items():
        seen, shown = 0, []
        for bound, count in zip(_bounds(histogram), buckets.counts, strict=True):
            seen += count
            shown.append((bound, seen))
        family.add_metric(values, shown, buckets.total)
    return family


def _bounds(histogram: Histogram) -> list[str]:
    return [_written_as(bound) for bound in (*histogram.bounds, float("inf"))]


def _process() -> list[Metric]:
    return list(ProcessCollector(registry=None).collect())


class Shared:
    """The numbers of all workers, which leave them in `directory`; this process is number `worker`."""

    def __init__(self, directory: Path, worker: str) -> None:
        self._directory = directory
        self._worker = worker
        self._files: dict[str, _Numbers] = {}
        self._before: dict[str, float] = {}
        self._written: dict[str, float] = {}

    @classmethod
    def of_environment(cls) -> Shared | None:
        """As the parent has it; None: this process is the only one."""
        directory, worker = os.environ.get(DIRECTORY), os.environ.get(WORKER)
        return None if directory is None or worker is None else cls(Path(directory), worker)

    def together(self, measured: Measured) -> Iterable[Metric]:
        """The metrics of all workers, with those of this one as they are now."""
        self.write(measured)
        self.write_process()
        return _collector(None, str(self._directory)).collect()

    def write(self, measured: Measured) -> None:
        """Let the others see what this worker measured."""
        for each in measured.instruments():
            kind = "counter" if isinstance(each, Counter) else "histogram"
            samples = _cells(each) if isinstance(each, Counter) else _parts(each)
            for key, value in samples:
                self._count(kind, key, value)
        for gauge in measured.gauges:
            self.write_gauge(gauge)

    def write_gauge(self, gauge: Gauge) -> None:
        """Let the others see how this one is at the moment."""
        self._put(gauge.name, gauge.meaning, gauge.together, gauge.read())

    def write_process(self) -> None:
        """Let the others see what this process uses. It counts open files one by one: not for every second."""
        for metric in _process():
            for sample in metric.samples:
                if sample.name == _CPU:
                    self._count("counter", _key(metric.name, sample.name, metric.documentation), sample.value)
                elif sample.name in _OF_PROCESSES:
                    self._put(sample.name, metric.documentation, _OF_PROCESSES[sample.name], sample.value)

    def remove(self) -> None:
        """Remove the files of all workers. Who has them open may go on writing, to nobody."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        """Write no more."""
        for file in self._files.values():
            file.close()

    def _count(self, kind: str, key: str, value: float) -> None:
        """Write a number that only rises, if it has risen."""
        if self._written.get(key) == value:
            return
        self._written[key] = value
        file = self._file(kind)
        if key not in self._before:
            self._before[key] = file.read_value(key)[0]
        file.write_value(key, self._before[key] + value, 0.0)

    def _put(self, name: str, meaning: str, together: Together, value: float) -> None:
        self._file(f"gauge_{together}").write_value(_key(name, name, meaning), value, 0.0)

    def _file(self, kind: str) -> _Numbers:
        if kind not in self._files:
            self._files[kind] = self._open(self._directory / f"{kind}_{self._worker}.db")
        return self._files[kind]

    def _open(self, path: Path) -> _Numbers:
        """One that is new gets its name when it can be read: another worker may read it at any moment."""
        if path.exists():
            return _open(str(path))
        unready = path.with_suffix(".new")
        unready.unlink(missing_ok=True)
        file = _open(str(unready))
        unready.rename(path)
        return file


def _key(
    metric: str, name: str, meaning: str, labels: tuple[str, ...] = (), values: tuple[str, ...] = ()
) -> str:
    key: str = mmap_key(metric, name, list(labels), list(values), meaning)
    return key


def _cells(counter: Counter) -> Iterator[tuple[str, float]]:
    metric = counter.name.removesuffix("_total")
    for values, cell in counter.cells.items():
        yield _key(metric, counter.name, counter.meaning, counter.labels, values), cell.value


def _parts(histogram: Histogram) -> Iterator[tuple[str, float]]:
    name, meaning, labels = histogram.name, histogram.meaning, histogram.labels
    for values, buckets in histogram.cells.items():
        yield _key(name, f"{name}_sum", meaning, labels, values), buckets.total
        for bound, count in zip(_bounds(histogram), buckets.counts, strict=True):
            yield _key(name, f"{name}_bucket", meaning, (*labels, "le"), (*values, bound)), count
