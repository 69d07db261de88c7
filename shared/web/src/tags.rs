//! Entity tags (RFC 9110, section 8.8.3): a row's version in quotes.

use axum::http::HeaderValue;
use axum::http::header::{GetAll, HeaderName};
use waybill_runtime::Version;

use crate::problem::Problem;

/// The tags of an `If-Match` or `If-None-Match` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: whatever is there.
    Any,
    /// These.
    These(Vec<Tag>),
}

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    weak: bool,
    /// Nothing where the tag is none that this service gave out.
    version: Option<Version>,
}

/// The tag of a version.
pub(crate) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

impl Tags {
    /// Reads all lines of the header; nothing if there are none.
    pub(crate) fn read(
        name: &HeaderName,
        lines: &GetAll<'_, HeaderValue>,
    ) -> Result<Option<Self>, Problem> {
        let mut lines = lines.iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let texts: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
        let malformed = || {
            Problem::malformed(format!("{name} must be * or a list of entity tags such as \"7\""))
        };
        Self::parse(&texts.join(&b","[..])).map(Some).ok_or_else(malformed)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut rest = text.trim_ascii();
        if rest == b"*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        loop {
            let (tag, after) = Tag::parse(rest)?;
            tags.push(tag);
            match after.trim_ascii_start().split_first() {
                None => return Some(Self::These(tags)),
                Some((b',', next)) => rest = next.trim_ascii_start(),
                Some(_) => return None,
            }
        }
    }

    /// The versions that match by the strong comparison; nothing if any does.
    pub(crate) fn strong(&self) -> Option<Vec<Version>> {
        match self {
            Self::Any => None,
            Self::These(tags) => {
                Some(tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version).collect())
            }
        }
    }

    /// The versions that match by the weak comparison; nothing if any does.
    pub(crate) fn weak(&self) -> Option<Vec<Version>> {
        match self {
            Self::Any => None,
            Self::These(tags) => Some(tags.iter().filter_map(|tag| tag.version).collect()),
        }
    }
}

impl Tag {
    /// The tag that the text begins with, and the text after it.
    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let opaque = quoted.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|&byte| byte == b'"')?;
        let (opaque, after) = (&opaque[..end], &opaque[end + 1..]);
        let allowed = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
        if !opaque.iter().all(allowed) {
            return None;
        }
        Some((Self { weak, version: version(opaque) }, after))
    }
}

/// The version that a tag stands for, if it is written as this service writes it.
fn version(opaque: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(opaque).ok()?;
    let version = Version(text.parse().ok()?);
    (version.to_string() == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Tags> {
        Tags::parse(text.as_bytes())
    }

    #[test]
    fn a_list_of_tags_is_read() {
        let tags = parsed(r#""7", W/"8" ,"x,y""#).unwrap();
        assert_eq!(tags.strong(), Some(vec![Version(7)]));
        assert_eq!(tags.weak(), Some(vec![Version(7), Version(8)]));
    }

    #[test]
    fn a_star_matches_anything() {
        assert_eq!(parsed(" * "), Some(Tags::Any));
        assert_eq!(Tags::Any.strong(), None);
    }

    #[test]
    fn a_tag_that_was_never_given_out_is_well_formed_and_matches_nothing() {
        for text in [r#""abc""#, r#""007""#, r#""+7""#, r#""""#] {
            assert_eq!(parsed(text).unwrap().strong(), Some(Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for text in
            ["", "7", "\"7", "7\"", "\"7\",", ",\"7\"", "\"7\" \"8\"", "w/\"7\"", "*, \"7\""]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
