//! The log: one line an event, with the fields and spelling of etcd's, so that what collects and
//! searches etcd's logs goes on working.

use crate::config::{LogFormat, LogLevel};
use crate::flags::value::Words;
use anyhow::{Context, bail};
use serde_json::Value;
use std::fmt::{self, Write};
use std::fs::{File, OpenOptions};
use std::io;
use std::sync::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries tell about every frame and election step below this level; their lines are not for
/// operators.
const LIBRARIES: &str = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,sled=warn";

/// Starts logging for the whole process.
pub fn start(outputs: &Words, level: LogLevel, format: LogFormat) -> anyhow::Result<()> {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => "error",
    };
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Line { format })
        .with_writer(BoxMakeWriter::new(Outputs::open(outputs)?));
    tracing_subscriber::registry()
        .with(EnvFilter::new(format!("{level},{LIBRARIES}")))
        .with(layer)
        .try_init()
        .context("start the log")
}

/// Where lines go; each to all.
struct Outputs(Vec<Output>);

enum Output {
    Stderr,
    Stdout,
    File(Mutex<File>),
}

impl Outputs {
    fn open(names: &Words) -> anyhow::Result<Outputs> {
        if names.0.len() > 1 && names.0.iter().any(|name| name == "default") {
            bail!("multi logoutput for \"default\" is not supported yet");
        }
        let outputs = names.0.iter().map(|name| match name.as_str() {
            // What systemd starts has its journal there.
            "default" | "stderr" | "/dev/stderr" | "systemd/journal" => Ok(Output::Stderr),
            "stdout" | "/dev/stdout" => Ok(Output::Stdout),
            path => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(|file| Output::File(Mutex::new(file)))
                .with_context(|| format!("open the log {path}")),
        });
        Ok(Outputs(outputs.collect::<anyhow::Result<_>>()?))
    }
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = &'a Outputs;
    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Outputs {
    /// A line that cannot be written is lost: there is nowhere left to say so.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in &self.0 {
            let _ = match output {
                Output::Stderr => io::stderr().write_all(line),
                Output::Stdout => io::stdout().write_all(line),
                Output::File(file) => match file.lock() {
                    Ok(mut file) => file.write_all(line),
                    Err(_) => Ok(()),
                },
            };
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats one event.
struct Line {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = match self.format {
            LogFormat::Json => fields.json(&time, event.metadata()),
            LogFormat::Console => fields.console(&time, event.metadata()),
        };
        writer.write_str(&line)
    }
}

/// An event's message and fields, in order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // tracing's field names are identifiers; etcd's words are joined by '-'.
            (name, value) => self.others.push((name, value)),
        }
    }

    fn json(&self, time: &str, about: &Metadata<'_>) -> String {
        let mut line = format!(
            "{{\"level\":\"{}\",\"ts\":\"{time}\",\"caller\":{},\"msg\":{}",
            level(about),
            Value::from(caller(about)),
            Value::from(self.message.as_str())
        );
        for (name, value) in &self.others {
            let _ = write!(line, ",{}:{value}", Value::from(spelled(name)));
        }
        line.push_str("}\n");
        line
    }

    fn console(&self, time: &str, about: &Metadata<'_>) -> String {
        let mut line = format!(
            "{time}\t{}\t{}\t{}",
            level(about),
            caller(about),
            self.message
        );
        for (at, (name, value)) in self.others.iter().enumerate() {
            let lead = if at == 0 { "\t{" } else { ", " };
            let _ = write!(line, "{lead}{}: {value}", Value::from(spelled(name)));
        }
        if !self.others.is_empty() {
            line.push('}');
        }
        line.push('\n');
        line
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::from(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }
}

fn spelled(field: &str) -> String {
    field.replace('_', "-")
}

fn level(about: &Metadata<'_>) -> &'static str {
    match *about.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// `crate/file.rs:line`, where zap has `package/file.go:line`.
fn caller(about: &Metadata<'_>) -> String {
    let path = about.file().unwrap_or("unknown");
    let mut parts = path.rsplit(['/', '\\']).filter(|part| *part != "src");
    let file = parts.next().unwrap_or("unknown");
    let line = about.line().unwrap_or(0);
    match parts.next() {
        Some(folder) => format!("{folder}/{file}:{line}"),
        None => format!("{file}:{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Line { format })
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                local_member_id = "a\"b",
                took_ms = 5,
                "ready to serve client requests"
            );
        });
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_line_has_the_keys_that_etcd_readers_parse() {
        let line = logged(LogFormat::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let event: Value = serde_json::from_str(&line).expect("one JSON object");
        assert_eq!(event["level"], "info");
        assert_eq!(event["msg"], "ready to serve client requests");
        assert_eq!(event["local-member-id"], "a\"b");
        assert_eq!(event["took-ms"], 5);
        let caller = event["caller"].as_str().expect("text");
        assert!(caller.starts_with("server/logging.rs:"), "{caller}");
        let ts = event["ts"].as_str().expect("text");
        assert!(
            ts.len() == "2006-01-02T15:04:05.999999Z".len() && ts.ends_with('Z'),
            "{ts}"
        );
    }

    #[test]
    fn a_console_line_is_separated_by_tabs() {
        let line = logged(LogFormat::Console);
        let columns: Vec<&str> = line.trim_end().split('\t').collect();
        assert_eq!(columns[1], "info");
        assert_eq!(columns[3], "ready to serve client requests");
        assert_eq!(columns[4], r#"{"local-member-id": "a\"b", "took-ms": 5}"#);
    }
}
