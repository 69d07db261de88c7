//! What happened in a run, line by line. The digest tells two runs apart without keeping their text.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

/// The log of a run.
pub struct Log {
    digest: Sha256,
    lines: u64,
    text: Option<String>,
    line: String,
}

impl Log {
    /// An empty log, which keeps its text only where it is wanted.
    #[must_use]
    pub fn new(keep_text: bool) -> Self {
        let text = keep_text.then(String::new);
        Self { digest: Sha256::new(), lines: 0, text, line: String::new() }
    }

    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing into a `String` does not fail.
        let _ = writeln!(self.line, "{line}");
        self.digest.update(self.line.as_bytes());
        self.lines += 1;
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
        }
    }

    /// The text, if it was kept.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// How many lines there are, and a digest of all of them.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = self.digest.clone().finalize();
        let hex =
            digest.iter().take(8).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        format!("{} lines, {hex}", self.lines)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest())
    }
}
