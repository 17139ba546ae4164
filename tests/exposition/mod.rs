//! The Prometheus text format 0.0.4, read strictly: what a scraper would take, and nothing that it would forgive.

use std::collections::{BTreeMap, BTreeSet};

/// What a text says: the values of samples by their name with labels, as they are written.
#[derive(Debug)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads a text; panics at the first line that breaks a rule.
    pub fn read(text: &str) -> Samples {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.end_of_family();
        Samples(reader.samples)
    }

    /// A sample that must be there.
    pub fn of(&self, name: &str) -> f64 {
        self.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.0.keys()))
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

#[derive(Default)]
struct Reader {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
    helped: Option<String>,
    family: String,
    kind: String,
    /// Of each histogram of the family: its buckets in order, its sum, its count.
    histograms: BTreeMap<String, Histogram>,
}

#[derive(Default)]
struct Histogram {
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a help");
            assert!(!help.is_empty() && self.helped.is_none(), "{line}");
            self.helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.end_of_family();
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(self.helped.take().as_deref(), Some(name), "HELP comes right before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(is_name(name) && name.starts_with("skylog_"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(self.families.insert(name.to_owned()), "{name} comes twice");
            (self.family, self.kind) = (name.to_owned(), kind.to_owned());
        } else {
            assert!(self.helped.is_none(), "HELP without TYPE before {line}");
            self.sample(line);
        }
    }

    fn sample(&mut self, line: &str) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (bare, labels) = match name.split_once('{') {
            Some((bare, labels)) => (bare, labels.strip_suffix('}').expect("labels have an end")),
            None => (name, ""),
        };
        let labels: Vec<(&str, &str)> = labels.split(',').filter(|label| !label.is_empty()).map(label).collect();
        let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), labels.len(), "a label comes twice: {line}");
        let suffix = bare.strip_prefix(self.family.as_str()).unwrap_or_else(|| panic!("{line} in {}", self.family));
        match (self.kind.as_str(), suffix) {
            ("histogram", "_bucket" | "_sum" | "_count") => self.part(suffix, &labels, value),
            ("counter" | "gauge", "") => {}
            _ => panic!("{line} in a {} {}", self.kind, self.family),
        }
        assert!(self.samples.insert(name.to_owned(), value).is_none(), "{name} comes twice");
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let others: Vec<_> = labels.iter().filter(|(name, _)| *name != "le").collect();
        let histogram = self.histograms.entry(format!("{others:?}")).or_default();
        match suffix {
            "_bucket" => {
                let (_, end) = labels.iter().find(|(name, _)| *name == "le").expect("a bucket has an end");
                let end = if *end == "+Inf" { f64::INFINITY } else { end.parse().expect("a number") };
                histogram.buckets.push((end, value));
            }
            "_sum" => assert!(histogram.sum.replace(value).is_none()),
            _ => assert!(histogram.count.replace(value).is_none()),
        }
    }

    fn end_of_family(&mut self) {
        for (labels, Histogram { buckets, sum, count }) in std::mem::take(&mut self.histograms) {
            let name = format!("{} {labels}", self.family);
            let in_order = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            assert!(in_order, "{name}: {buckets:?}");
            let last = buckets.last().unwrap_or_else(|| panic!("{name} has no buckets"));
            assert_eq!((last.0, Some(last.1)), (f64::INFINITY, count), "{name}");
            assert!(sum.is_some(), "{name} has no sum");
        }
    }
}

fn label(text: &str) -> (&str, &str) {
    let (name, value) = text.split_once("=\"").unwrap_or_else(|| panic!("no label: {text:?}"));
    let value = value.strip_suffix('"').expect("a value has an end");
    assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{text:?}");
    (name, value)
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
