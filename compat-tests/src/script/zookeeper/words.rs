//! Four-letter words: four bytes in place of a handshake, answered with text.

use std::time::Duration;

use anyhow::Result;

use super::super::args::Args;
use super::Session;
use super::connection::Connection;

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// `word WORD [only=PREFIX,PREFIX] [shape] [sorted]`: prints the answer, or only the lines that
    /// start so, in the order of the prefixes; with `shape`, numbers are not compared.
    pub(super) fn word(&mut self, args: &mut Args) -> Result<String> {
        let word = args.word()?;
        let only = args.value("only");
        let (shape, sorted) = (args.flag("shape"), args.flag("sorted"));
        let mut connection = Connection::open(self.port())?;
        connection.send_bytes(word.as_bytes());
        let answer = connection.receive_all(ANSWER_DEADLINE)?;
        let Some(answer) = answer else {
            return Ok("the connection stays open".to_owned());
        };
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let wanted = |line: &&str| {
            only.as_ref()
                .is_none_or(|only| only.split(',').any(|prefix| line.starts_with(prefix)))
        };
        let lines = answer.lines().filter(wanted);
        let mut lines: Vec<_> = if shape {
            lines.map(without_numbers).collect()
        } else {
            lines.map(str::to_owned).collect()
        };
        if let Some(only) = &only {
            let place = |line: &String| only.split(',').position(|p| line.starts_with(p));
            lines.sort_by_key(place);
        }
        if sorted {
            lines.sort_unstable();
        }
        Ok(match lines.as_slice() {
            [] => "nothing, and closed".to_owned(),
            [line] => line.clone(),
            lines => format!("\n  {}", lines.join("\n  ")),
        })
    }
}

/// The line with `N` in place of each number; of a version nothing remains.
fn without_numbers(line: &str) -> String {
    if let Some((name, _)) = line
        .split_once("ersion")
        .filter(|(_, rest)| rest.starts_with([':', '=', '\t']))
    {
        return format!("{name}ersion ...");
    }
    let mut text = String::new();
    for word in line.split_inclusive([' ', '\t', ':', '=', '/', ',', '[', '(', '{']) {
        let digits = word.trim_start_matches("0x");
        let end = digits
            .find(|c: char| !c.is_ascii_hexdigit() && c != '.')
            .unwrap_or(digits.len());
        if word.starts_with("0x") || digits.starts_with(|c: char| c.is_ascii_digit()) {
            text.push('N');
            text += &digits[end..];
        } else {
            text += word;
        }
    }
    text
}
