//! Prometheus' text format, version 0.0.4. Written here rather than by a library: everything is
//! counted elsewhere already, and etcd's names break the rules that libraries enforce (gauges that
//! end in `_total`, counters that do not).

use std::fmt::{Display, Write};

/// What a reader must send as the content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// A page being written.
#[derive(Default)]
pub struct Page {
    text: String,
}

/// The samples of one name.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Page {
    /// A number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "counter").sample(&[], value);
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, help, "gauge").sample(&[], value);
    }

    /// Starts the samples of a name.
    pub fn family<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Family<'a> {
        let text = &mut self.text;
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text, name }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A histogram: what fell below each bound (not cumulated), and last what lies beyond them all.
    pub fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let mut below = 0;
        let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            below += count;
            self.line("_bucket", labels, Some(&bound), below);
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, below);
    }

    /// A summary: what parts of it did not exceed, how often, and how much in all.
    pub fn summary(&mut self, quantiles: &[(f64, f64)], count: u64, sum: f64) {
        for (part, value) in quantiles {
            self.sample(&[("quantile", &part.to_string())], value);
        }
        self.line("_sum", &[], None, sum);
        self.summary_count(count);
    }

    /// A summary of which only that is known.
    pub fn summary_count(&mut self, count: u64) {
        self.line("_count", &[], None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut lead = '{';
        for (name, value) in labels
            .iter()
            .copied()
            .chain(bound.map(|bound| ("le", bound)))
        {
            let _ = write!(self.text, "{lead}{name}=\"{}\"", escaped(value));
            lead = ',';
        }
        if lead == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_looks_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.counter("a_total", "As.", 5u64);
        let mut family = page.family("b", "Bs.", "gauge");
        family.sample(&[("x", "q\"\\\n"), ("y", "")], 1.5);
        let mut family = page.family("c_seconds", "Cs.", "histogram");
        family.histogram(&[("To", "z")], &[0.001, 8.192], &[1, 2, 3], 0.25);
        let mut family = page.family("d", "Ds.", "summary");
        family.summary(&[(0.5, 1.0)], 3, 4.5);
        assert_eq!(
            page.finish(),
            "# HELP a_total As.\n# TYPE a_total counter\na_total 5\n\
             # HELP b Bs.\n# TYPE b gauge\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 1.5\n\
             # HELP c_seconds Cs.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{To=\"z\",le=\"0.001\"} 1\n\
             c_seconds_bucket{To=\"z\",le=\"8.192\"} 3\n\
             c_seconds_bucket{To=\"z\",le=\"+Inf\"} 6\n\
             c_seconds_sum{To=\"z\"} 0.25\nc_seconds_count{To=\"z\"} 6\n\
             # HELP d Ds.\n# TYPE d summary\n\
             d{quantile=\"0.5\"} 1\nd_sum 4.5\nd_count 3\n"
        );
    }
}
