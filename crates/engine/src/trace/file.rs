//! Writes a trace as Chrome's JSON, which Perfetto opens: one track for the host and one for the device.

use std::fmt::Write;

use super::{Event, Trace, Track};
use crate::error::Result;
use crate::staged_file::StagedFile;

impl Trace {
    /// Writes all events, and renames the file to its target.
    ///
    /// # Errors
    /// `ERR_WRITE`.
    pub fn write(&self, mut file: StagedFile) -> Result<()> {
        let roof = self.roof();
        let head = serde_json::json!({
            "gemmFlopsPerSecond": roof.flops,
            "bytesPerSecond": roof.bytes,
            "eventsLeftOut": self.dropped_events(),
        });
        file.write(
            format!("{{\"displayTimeUnit\":\"ms\",\"otherData\":{head},\"traceEvents\":[\n").as_bytes(),
        )?;
        let mut lines = String::new();
        for (name, track) in [("host", Track::Host), ("device", Track::Device)] {
            let thread = thread_id(track);
            let separator = if track == Track::Host { "" } else { ",\n" };
            let _ = write!(
                lines,
                "{separator}{{\"ph\":\"M\",\"pid\":1,\"tid\":{thread},\"name\":\"thread_name\",\
                 \"args\":{{\"name\":\"{name}\"}}}}"
            );
        }
        for event in self.events() {
            write_event(&mut lines, &event);
            if lines.len() > 1 << 16 {
                file.write(lines.as_bytes())?;
                lines.clear();
            }
        }
        lines.push_str("\n]}\n");
        file.write(lines.as_bytes())?;
        file.finish()
    }
}

fn thread_id(track: Track) -> u32 {
    match track {
        Track::Host => 1,
        Track::Device => 2,
    }
}

/// Names come from the engine and need no escapes.
fn write_event(lines: &mut String, event: &Event) {
    let Event { track, mark, kernel, start, took, cost } = event;
    let microseconds = |d: &std::time::Duration| d.as_nanos() as f64 / 1e3;
    let _ = write!(
        lines,
        ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"ts\":{:.3},\"dur\":{:.3},\"name\":\"{}\",\"cat\":\"{}\"",
        thread_id(*track),
        microseconds(start),
        microseconds(took),
        mark.operation,
        mark.pass.as_str(),
    );
    let _ = match track {
        Track::Host => write!(lines, ",\"args\":{{\"pass\":\"{}\"}}}}", mark.pass.as_str()),
        Track::Device => write!(
            lines,
            ",\"args\":{{\"pass\":\"{}\",\"kernel\":\"{kernel}\",\"bytesRead\":{},\"bytesWritten\":{},\"flops\":{}}}}}",
            mark.pass.as_str(),
            cost.read,
            cost.written,
            cost.flops
        ),
    };
}
