//! How long things take, counted without locks, and the text in which monitoring reads counts.

use std::array;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets of every histogram, in microseconds; a last bucket has no end.
pub const BUCKET_ENDS_US: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000, 60_000_000,
];

/// How many there are with the last.
const BUCKETS: usize = BUCKET_ENDS_US.len() + 1;

fn bucket(took: Duration) -> usize {
    BUCKET_ENDS_US.partition_point(|end| took > Duration::from_micros(*end))
}

/// How long things of one kind took; any thread may add to it or read it at any time.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn add(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was added so far; each number is right, but not all of the very same moment.
    pub fn latencies(&self) -> Latencies {
        Latencies {
            buckets: array::from_fn(|n| self.buckets[n].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

/// What a [`Histogram`] holds at a moment, or a histogram of its own under somebody's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// How many took at most as long as each of [`BUCKET_ENDS_US`] and longer than the one before; the last, longer than all.
    pub buckets: [u64; BUCKETS],
    /// What those took together.
    pub sum: Duration,
}

impl Latencies {
    /// Something took so long.
    pub fn add(&mut self, took: Duration) {
        self.buckets[bucket(took)] += 1;
        self.sum += took;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counts as Prometheus and its relatives read them (text format 0.0.4).
#[derive(Default)]
pub struct Text {
    text: String,
}

impl Text {
    /// One number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, "", [("", value)]);
    }

    /// One number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    /// Numbers that only grow, told apart by the values of a label; `("", n)` has none.
    pub fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "counter");
        for (of, value) in values {
            self.sample(name, &labels(label, of), value);
        }
    }

    /// One gauge of 1 among those of 0: the state that something is in.
    pub fn states<'a>(&mut self, name: &str, help: &str, states: impl IntoIterator<Item = &'a str>, now: &str) {
        self.head(name, help, "gauge");
        for state in states {
            self.sample(name, &labels("state", state), u8::from(state == now));
        }
    }

    /// Histograms in seconds, told apart by the values of a label; `("", …)` has none.
    pub fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, Latencies)>,
    ) {
        self.head(name, help, "histogram");
        for (of, latencies) in values {
            let labels = labels(label, of);
            let mut so_far = 0;
            let ends = BUCKET_ENDS_US.iter().map(|us| format!("{}", Duration::from_micros(*us).as_secs_f64()));
            for (end, n) in ends.chain(["+Inf".to_owned()]).zip(latencies.buckets) {
                so_far += n;
                let comma = if labels.is_empty() { "" } else { "," };
                self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{end}\""), so_far);
            }
            self.sample(&format!("{name}_sum"), &labels, latencies.sum.as_secs_f64());
            self.sample(&format!("{name}_count"), &labels, so_far);
        }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes everything");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.text, "{name}{labels} {value}").expect("a string takes everything");
    }
}

/// Values are words of this program: they need no escapes.
fn labels(label: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{label}=\"{value}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_exactly_as_long_as_an_end_is_in_its_bucket() {
        let histogram = Histogram::default();
        for took in [0, 10_000, 10_001, 60_000_000_000, 60_000_000_001] {
            histogram.add(Duration::from_nanos(took));
        }
        let latencies = histogram.latencies();
        assert_eq!((latencies.buckets[0], latencies.buckets[1]), (2, 1));
        assert_eq!((latencies.buckets[18], latencies.buckets[19]), (1, 1));
        assert_eq!((latencies.count(), latencies.sum), (5, Duration::from_nanos(120_000_020_002)));
        let mut own = Latencies::default();
        for took in [0, 10_000, 10_001, 60_000_000_000, 60_000_000_001] {
            own.add(Duration::from_nanos(took));
        }
        assert_eq!(own, latencies);
    }

    #[test]
    fn buckets_are_told_with_all_that_are_below_them() {
        let mut latencies = Latencies::default();
        latencies.add(Duration::from_micros(20));
        latencies.add(Duration::from_millis(2));
        let mut text = Text::default();
        text.histograms("some_seconds", "How long.", "kind", [("get", latencies)]);
        text.counter("some_total", "How many.", 7);
        text.states("some_state", "Which.", ["up", "down"], "down");
        let text = text.finish();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["# HELP some_seconds How long.", "# TYPE some_seconds histogram"]);
        for line in [
            "some_seconds_bucket{kind=\"get\",le=\"0.00001\"} 0",
            "some_seconds_bucket{kind=\"get\",le=\"0.000025\"} 1",
            "some_seconds_bucket{kind=\"get\",le=\"0.0025\"} 2",
            "some_seconds_bucket{kind=\"get\",le=\"+Inf\"} 2",
            "some_seconds_sum{kind=\"get\"} 0.00202",
            "some_seconds_count{kind=\"get\"} 2",
            "some_total 7",
            "some_state{state=\"up\"} 0",
            "some_state{state=\"down\"} 1",
        ] {
            assert!(lines.contains(&line), "{line:?} is missing in:\n{text}");
        }
    }
}
