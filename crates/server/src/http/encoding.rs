//! From a body's bytes, as a client encoded them, to text.
use crate::http::error::{ApiError, ErrorCode};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use std::io::{self, Read};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    Identity,
    Gzip,
    Deflate,
}

impl ContentCoding {
    /// The coding that the header `Content-Encoding` names.
    ///
    /// Errors: [`ErrorCode::UnsupportedEncoding`] for a coding that is not known, and for several on top of each other.
    pub fn named_in(headers: &HeaderMap) -> Result<Self, ApiError> {
        let values = headers.get_all(CONTENT_ENCODING).into_iter().map(|value| value.to_str().unwrap_or("not ASCII"));
        let codings = values.flat_map(|value| value.split(',')).map(|coding| coding.trim().to_ascii_lowercase());
        let codings: Vec<_> = codings.filter(|coding| !coding.is_empty() && coding != "identity").collect();
        match codings.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(ContentCoding::Identity),
            ["gzip" | "x-gzip"] => Ok(ContentCoding::Gzip),
            ["deflate"] => Ok(ContentCoding::Deflate),
            _ => {
                let given = codings.join(", ");
                let message = format!("Content-Encoding is {given}; it must be gzip, deflate or identity, one of them");
                Err(ApiError::new(ErrorCode::UnsupportedEncoding, message))
            }
        }
    }

    /// What `bytes` hold, of which no more than one byte over `limit` is unpacked.
    ///
    /// Errors: [`ErrorCode::InvalidJson`] if the bytes are not of this coding.
    pub fn unpack(self, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, ApiError> {
        let unpacked = match self {
            ContentCoding::Identity => return Ok(bytes),
            ContentCoding::Gzip => read_up_to(MultiGzDecoder::new(bytes.as_slice()), limit),
            // The name stands for a stream with zlib's header; some clients send one without it.
            ContentCoding::Deflate => read_up_to(ZlibDecoder::new(bytes.as_slice()), limit)
                .or_else(|error| read_up_to(DeflateDecoder::new(bytes.as_slice()), limit).map_err(|_| error)),
        };
        unpacked.map_err(|e| {
            let name = if self == ContentCoding::Gzip { "gzip" } else { "deflate" };
            ApiError::new(
                ErrorCode::InvalidJson,
                format!("the body is not {name}, as Content-Encoding says it is: {e}"),
            )
        })
    }
}

fn read_up_to(reader: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A body's text without a byte order mark.
///
/// Errors: [`ErrorCode::InvalidJson`] for text in another encoding than UTF-8.
pub fn utf8_text(bytes: &[u8]) -> Result<&str, ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidJson, message));
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // JSON begins with an ASCII character, of which UTF-16 and UTF-32 make a byte and zeros.
    let wide = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..]);
    if wide {
        return refuse("the body is UTF-16 or UTF-32; JSON must be sent as UTF-8".into());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(e) => refuse(format!("the body is not UTF-8 from byte {} on; JSON must be sent as UTF-8", e.valid_up_to())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn coding(value: &str) -> Option<ContentCoding> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap())]);
        ContentCoding::named_in(&headers).ok()
    }

    #[test]
    fn one_known_coding_is_taken() {
        assert_eq!(coding(" GZip"), Some(ContentCoding::Gzip));
        assert_eq!(coding("x-gzip, identity"), Some(ContentCoding::Gzip));
        assert_eq!(coding("deflate"), Some(ContentCoding::Deflate));
        assert_eq!(coding(""), Some(ContentCoding::Identity));
        assert_eq!((coding("br"), coding("gzip, gzip"), coding("é")), (None, None, None));
    }

    #[test]
    fn what_is_unpacked_is_bounded() {
        let mut bomb = flate2::read::GzEncoder::new(io::repeat(b' ').take(1 << 24), flate2::Compression::best());
        let mut bytes = Vec::new();
        bomb.read_to_end(&mut bytes).unwrap();
        assert_eq!(ContentCoding::Gzip.unpack(bytes, 1000).unwrap().len(), 1001);
    }
}
