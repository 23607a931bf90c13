//! Results as a table for people and as JSON for machines.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::compare::{Figure, Outcome, Series};
use crate::statistics::Ratio;
use crate::suite::Verdict;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this tool.
    pub version: &'static str,
    /// What the workloads came to.
    pub outcomes: Vec<Outcome>,
    /// Goals and whether they were reached; only in a suite.
    pub verdicts: Vec<Verdict>,
}

/// The columns: figures with their headings and decimals.
const COLUMNS: [(Figure, &str, usize); 7] = [
    (Figure::PerSecond, "ops/s", 0),
    (Figure::P50, "p50 ms", 3),
    (Figure::P99, "p99 ms", 3),
    (Figure::P999, "p99.9 ms", 3),
    (Figure::Cpu, "CPU us/op", 1),
    (Figure::Memory, "RSS MiB", 0),
    (Figure::GeneratorCpu, "gen us/op", 1),
];

impl Report {
    /// A report of these outcomes.
    pub fn new(outcomes: Vec<Outcome>, verdicts: Vec<Verdict>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            outcomes,
            verdicts,
        }
    }

    /// Prints the table, and writes the JSON where it is wanted.
    pub fn publish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = json else {
            print!("{}", self.table());
            return Ok(());
        };
        let text = serde_json::to_string_pretty(self).context("encoding the report")?;
        if path == Path::new("-") {
            println!("{text}");
            return Ok(());
        }
        print!("{}", self.table());
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    fn table(&self) -> String {
        let mut rows = vec![heading()];
        for outcome in &self.outcomes {
            for (at, series) in outcome.series.iter().enumerate() {
                let name = if at == 0 { outcome.name.as_str() } else { "" };
                rows.push(series_row(name, series));
            }
            if outcome.series.len() == 2 {
                rows.push(ratio_row(outcome));
            }
        }
        let mut text = render(&rows);
        for series in self.outcomes.iter().flat_map(|outcome| &outcome.series) {
            note_failures(&mut text, series);
        }
        if !self.verdicts.is_empty() {
            let mut rows = vec![
                ["goal", "wanted", "ratio", "spread", ""]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            rows.extend(self.verdicts.iter().map(Verdict::row));
            text.push('\n');
            text.push_str(&render(&rows));
        }
        text
    }
}

fn heading() -> Vec<String> {
    let mut row = vec!["workload".to_owned(), "server".to_owned()];
    row.extend(COLUMNS.map(|(_, heading, _)| heading.to_owned()));
    row.push("failed".to_owned());
    row
}

fn series_row(name: &str, series: &Series) -> Vec<String> {
    let mut row = vec![
        name.to_owned(),
        format!("{} ({})", series.contender, series.version),
    ];
    row.extend(COLUMNS.map(|(figure, _, decimals)| {
        series
            .median(figure)
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    }));
    row.push(series.failures.values().sum::<u64>().to_string());
    row
}

fn ratio_row(outcome: &Outcome) -> Vec<String> {
    let mut row = vec![String::new(), "ratio".to_owned()];
    row.extend(
        COLUMNS.map(|(figure, _, _)| match (figure, outcome.ratio(figure)) {
            (Figure::GeneratorCpu, _) | (_, None) => "-".to_owned(),
            (Figure::PerSecond | Figure::Cpu, Some(ratio)) => {
                format!("{:.2} {}", ratio.median, spread(ratio))
            }
            (Figure::P50 | Figure::P99 | Figure::P999 | Figure::Memory, Some(ratio)) => {
                format!("{:.2}", ratio.median)
            }
        }),
    );
    row.push(String::new());
    row
}

/// The lowest and highest ratio of the rounds.
pub fn spread(ratio: Ratio) -> String {
    format!("({:.2}..{:.2})", ratio.min, ratio.max)
}

fn note_failures(text: &mut String, series: &Series) {
    let mut note = |count: u64, what: &str| {
        if count > 0 {
            writeln!(text, "{}: {count} x {what}", series.contender)
                .expect("writing to a string succeeds");
        }
    };
    for (reason, count) in &series.failures {
        note(*count, reason);
    }
    note(series.misses, "an answer without what was asked for");
    note(series.unsent, "due but not sent before the slice's end");
}

/// Columns wide enough for their cells; the first two to the left, the others to the right.
fn render(rows: &[Vec<String>]) -> String {
    const LEFT: usize = 2;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let padded = if at < LEFT {
                format!("{cell:<width$}  ")
            } else {
                format!("{cell:>width$}  ")
            };
            line.push_str(&padded);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "server".to_owned(), "ops".to_owned()],
            vec!["long".to_owned(), "x".to_owned(), "12345".to_owned()],
        ];
        assert_eq!(render(&rows), "a     server    ops\nlong  x       12345\n");
    }
}
