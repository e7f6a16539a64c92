//! The look through a job's input before it runs: faults of the whole file, and its lines cut into segments. Pure.

use crate::store::segments::Segment;
use crate::wire::batch::{FileFault, Line};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// A segment ends with the line that fills one of these.
const SEGMENT_LINES: i64 = 256;
const SEGMENT_BYTES: i64 = 512 << 10;
/// Faults that are listed; the rest is not looked for.
const MAX_FAULTS: usize = 100;

/// A scan under way: fed with the file's bytes in order.
pub(super) struct Scan {
    max_lines: usize,
    max_line_bytes: usize,
    endpoint: String,
    /// Bytes of a line whose end has not come.
    rest: Vec<u8>,
    /// Where `rest` begins.
    at: i64,
    /// Hashes of the ids so far: 16 bytes each, however long the ids are.
    ids: HashSet<[u8; 16]>,
    lines: i64,
    /// Lines as the file counts them, blank ones included.
    file_lines: i64,
    segment: Option<Segment>,
    segments: Vec<Segment>,
    faults: Vec<FileFault>,
}

/// What a scan found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    pub lines: i64,
    pub segments: Vec<Segment>,
}

impl Scan {
    pub(super) fn new(max_lines: usize, max_line_bytes: usize, endpoint: &str) -> Self {
        Self {
            max_lines,
            max_line_bytes,
            endpoint: endpoint.to_owned(),
            rest: Vec::new(),
            at: 0,
            ids: HashSet::new(),
            lines: 0,
            file_lines: 0,
            segment: None,
            segments: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Takes the next bytes; false if there is no point in more.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = bytes.split_at(end + 1);
            bytes = behind;
            if self.rest.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() > self.max_line_bytes {
            self.fault("line_too_long", format!("is longer than {} bytes", self.max_line_bytes), None);
            return false;
        }
        self.faults.len() < MAX_FAULTS && self.lines <= self.max_lines as i64
    }

    /// The end of the file.
    pub(super) fn end(mut self) -> Result<Scanned, Vec<FileFault>> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && rest.len() <= self.max_line_bytes {
            self.line(&rest);
        }
        self.segments.extend(self.segment.take());
        let whole = |code: &str, message: String| FileFault { code: code.to_owned(), message, line: None, param: None };
        if self.lines > self.max_lines as i64 {
            self.faults.push(whole("too_many_tasks", format!("The file has more than {} lines", self.max_lines)));
        } else if self.lines == 0 && self.faults.is_empty() {
            self.faults.push(whole("empty_file", "The file has no line".to_owned()));
        }
        if self.faults.is_empty() { Ok(Scanned { lines: self.lines, segments: self.segments }) } else { Err(self.faults) }
    }

    fn line(&mut self, bytes: &[u8]) {
        let (start, end) = (self.at, self.at + bytes.len() as i64);
        self.at = end;
        self.file_lines += 1;
        let text = text_of(bytes, start);
        if text.is_empty() {
            // A blank line belongs to the segment it stands in, or to none.
            if let Some(segment) = &mut self.segment {
                segment.end_byte = end;
            }
            return;
        }
        self.check(text);
        let (seq, line) = (self.segments.len() as i64, self.lines);
        let segment = self.segment.get_or_insert(Segment { seq, first_line: line, start_byte: start, end_byte: end });
        segment.end_byte = end;
        self.lines += 1;
        if self.lines - segment.first_line >= SEGMENT_LINES || segment.end_byte - segment.start_byte >= SEGMENT_BYTES {
            self.segments.extend(self.segment.take());
        }
    }

    fn check(&mut self, text: &[u8]) {
        if text.len() > self.max_line_bytes {
            return self.fault("line_too_long", format!("is longer than {} bytes", self.max_line_bytes), None);
        }
        let line = match Line::parse(text) {
            Err((code, message)) => return self.fault(code, message, (code != "invalid_json_line").then_some("custom_id")),
            Ok(line) => line,
        };
        let digest: [u8; 32] = Sha256::digest(line.custom_id.as_bytes()).into();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        if !self.ids.insert(short) {
            self.fault("duplicate_custom_id", "custom_id has occurred before".to_owned(), Some("custom_id"));
        }
        if !self.endpoint.is_empty() && line.url != self.endpoint {
            self.fault("url_mismatch", format!("url must be {}, the batch's endpoint", self.endpoint), Some("url"));
        }
    }

    fn fault(&mut self, code: &str, message: String, param: Option<&str>) {
        if self.faults.len() < MAX_FAULTS {
            let param = param.map(str::to_owned);
            self.faults.push(FileFault {
                code: code.to_owned(),
                message: format!("Line {}: {message}", self.file_lines.max(1)),
                line: Some(self.file_lines.max(1)),
                param,
            });
        }
    }
}

/// A line without its end, the byte order mark of the file's first, and blanks around it.
pub(super) fn text_of(line: &[u8], start: i64) -> &[u8] {
    let line = if start == 0 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
    line.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str, piece: usize) -> Result<Scanned, Vec<FileFault>> {
        let mut scan = Scan::new(1000, 200, "");
        for piece in text.as_bytes().chunks(piece) {
            if !scan.feed(piece) {
                break;
            }
        }
        scan.end()
    }

    fn codes(text: &str) -> Vec<(String, Option<i64>)> {
        scan(text, 7).unwrap_err().into_iter().map(|fault| (fault.code, fault.line)).collect()
    }

    #[test]
    fn marks_blank_lines_and_a_missing_end_are_fine() {
        let scanned = scan("\u{feff}{\"custom_id\":\"a\"}\r\n\n  \r\n{\"custom_id\":\"b\"}", 5).unwrap();
        assert_eq!(scanned, Scanned { lines: 2, segments: vec![Segment { seq: 0, first_line: 0, start_byte: 0, end_byte: 44 }] });
    }

    #[test]
    fn faults_of_the_file_are_named_with_their_line() {
        let line = |id: usize| format!("{{\"custom_id\":\"{id}\"}}\n");
        assert_eq!(codes(""), [("empty_file".to_owned(), None)]);
        assert_eq!(codes("\n \n"), [("empty_file".to_owned(), None)]);
        assert_eq!(
            codes(&(line(1) + "\n{]\n{}\n" + &line(1))),
            [
                ("invalid_json_line".to_owned(), Some(3)),
                ("missing_required_parameter".to_owned(), Some(4)),
                ("duplicate_custom_id".to_owned(), Some(5)),
            ]
        );
        assert_eq!(codes(&(0..1001).map(line).collect::<String>()), [("too_many_tasks".to_owned(), None)]);
        assert_eq!(codes(&"x".repeat(300))[0].0, "line_too_long");
        assert_eq!(codes(&"{}\n".repeat(500)).len(), MAX_FAULTS);
        let mut scan = Scan::new(10, 200, "/v1/embeddings");
        scan.feed(br#"{"custom_id":"a","url":"/v1/other"}"#);
        assert_eq!(scan.end().unwrap_err()[0].code, "url_mismatch");
    }

    proptest! {
        #[test]
        fn segments_follow_each_other_and_hold_every_line(blanks in prop::collection::vec(0usize..3, 1..900), piece in 1usize..500) {
            let text: String = blanks.iter().enumerate().map(|(id, blank)| format!("{}{{\"custom_id\":\"{id}\"}}\n", "\n".repeat(*blank))).collect();
            let scanned = scan(&text, piece).unwrap();
            prop_assert_eq!(scanned.lines, blanks.len() as i64);
            let (mut line, mut byte) = (0, 0);
            for (seq, segment) in scanned.segments.iter().enumerate() {
                prop_assert_eq!((segment.seq, segment.first_line), (seq as i64, line));
                prop_assert!(segment.start_byte >= byte && text.as_bytes()[byte as usize..segment.start_byte as usize].iter().all(u8::is_ascii_whitespace));
                let inside = &text[segment.start_byte as usize..segment.end_byte as usize];
                line += inside.lines().filter(|line| !line.trim().is_empty()).count() as i64;
                byte = segment.end_byte;
            }
            prop_assert_eq!(line, scanned.lines);
        }
    }
}
