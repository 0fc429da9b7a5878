//! Ids of tool calls for templates that insist on nine letters and digits, as Mistral's do. Clients send the ids that
//! they were given, by whatever server, and a conversation may have begun with another model.
use serde_json::Value;

const LENGTH: usize = 9;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Replaces the ids of all calls, and of the results that name them, by short ones.
pub(super) fn shorten(messages: &mut [Value]) {
    for message in messages {
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
        let ids = calls.filter_map(|call| call.get_mut("id"));
        ids.for_each(shorten_id);
        message.get_mut("tool_call_id").into_iter().for_each(shorten_id);
    }
}

fn shorten_id(id: &mut Value) {
    if let Value::String(text) = id
        && !(text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        *text = short(text);
    }
}

/// A hash (FNV-1a) of an id, as nine digits to the base of 62, so that a call and its result have the same one.
fn short(id: &str) -> String {
    let (base, prime) = (0xcbf2_9ce4_8422_2325_u64, 0x0100_0000_01b3_u64);
    let mut hash = id.bytes().fold(base, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(prime));
    let digit = |_| {
        let digit = DIGITS[(hash % 62) as usize];
        hash /= 62;
        char::from(digit)
    };
    (0..LENGTH).map(digit).collect()
}
