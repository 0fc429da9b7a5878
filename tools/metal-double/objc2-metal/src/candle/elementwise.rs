//! Conversions, copies, sums and products of elements, and rows that are gathered.
use super::{Call, Element, Kernel, strided};

pub fn find(name: &str) -> Option<Kernel> {
    let (operation, rest) = name.split_once('_')?;
    let parts: Vec<&str> = rest.split('_').collect();
    match (operation, &*parts) {
        ("cast", [from, to]) => contiguous(Element::parse(from)?, Element::parse(to)?),
        ("cast", [from, to, "strided"]) => with_strides(Element::parse(from)?, Element::parse(to)?),
        ("copy", [kind]) => contiguous(Element::parse(kind)?, Element::parse(kind)?),
        ("copy", [kind, "strided"]) => with_strides(Element::parse(kind)?, Element::parse(kind)?),
        ("copy2d", [kind]) => copy_2d(Element::parse(kind)?.size()),
        ("is", ["u32", kind]) => index_select(Element::parse(kind)?.size()),
        (_, [kind, rest @ ..]) => {
            let (apply, element) = (operator(operation)?, Element::parse(kind)?);
            match rest {
                [] => binary(apply, element),
                [suffix] => binary_strided(apply, element, indexers(suffix)?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Element by element, converted: the number of elements, from, to.
fn contiguous(from: Element, to: Element) -> Option<Kernel> {
    Kernel::new([3, 2], move |call, output| {
        let count = call.number(0);
        call.covers("elements", call.sizes[2][0] * from.a_thread(), count);
        (0..count).for_each(|i| to.set(output, i, from.get(call.bytes(1), i)));
    })
}

/// The elements of a view, converted: the number of elements, of dimensions, dimensions, strides, from, to.
fn with_strides(from: Element, to: Element) -> Option<Kernel> {
    Kernel::new([6, 5], move |call, output| {
        let (count, dims, strides) = (call.number(0), call.numbers(2), call.numbers(3));
        call.covers("elements", call.sizes[2][0], count);
        (0..count).for_each(|i| to.set(output, i, from.get(call.bytes(4), strided(i, &dims, &strides))));
    })
}

/// Rows that are copied: the number of rows, their length, the strides of source and target, from, to.
fn copy_2d(size: usize) -> Option<Kernel> {
    Kernel::new([6, 5], move |call, output| {
        let [rows, length, from_stride, to_stride] = [0, 1, 2, 3].map(|index| call.number(index));
        call.covers("rows", call.sizes[2][0], rows);
        call.covers("elements a row", call.sizes[2][1], length);
        for row in 0..rows {
            let from = &call.bytes(4)[row * from_stride * size..][..length * size];
            output[row * to_stride * size..][..length * size].copy_from_slice(from);
        }
    })
}

/// Slices of a tensor by their numbers: the number of elements of the result; of the source before the dimension, in it
/// and behind it; of numbers; whether the source is contiguous, its dimensions and strides; source, numbers, result.
fn index_select(size: usize) -> Option<Kernel> {
    Kernel::new([11, 10], move |call, output| {
        let [count, _, slices, right, ids] = [0, 1, 2, 3, 4].map(|index| call.number(index));
        call.covers("elements", call.sizes[2][0], count);
        let (contiguous, dims, strides) = (call.bytes(5)[0] != 0, call.numbers(6), call.numbers(7));
        let numbers = call.ints(9);
        for i in 0..count {
            let number = numbers[i / right % ids];
            assert!(number < slices, "{}: slice {number} of {slices}", call.name);
            let at = (i / right / ids * slices + number) * right + i % right;
            let at = if contiguous { at } else { strided(at, &dims, &strides) };
            output[i * size..][..size].copy_from_slice(&call.bytes(8)[at * size..][..size]);
        }
    })
}

type Operator = fn(f64, f64) -> f64;

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "badd" => |a, b| a + b,
        "bsub" => |a, b| a - b,
        "bmul" => |a, b| a * b,
        "bdiv" => |a, b| a / b,
        _ => return None,
    })
}

/// Two tensors, element by element: the number of elements, left, right, result.
fn binary(apply: Operator, element: Element) -> Option<Kernel> {
    Kernel::new([4, 3], move |call, output| {
        let count = call.number(0);
        call.covers("elements", call.sizes[2][0] * element.a_thread(), count);
        for i in 0..count {
            element.set(output, i, apply(element.get(call.bytes(1), i), element.get(call.bytes(2), i)));
        }
    })
}

/// How an operand is walked.
#[derive(Clone, Copy)]
enum Walk {
    Strided,
    Contiguous,
    Scalar,
}

fn indexers(suffix: &str) -> Option<[Walk; 2]> {
    use Walk::{Contiguous, Scalar, Strided};
    Some(match suffix {
        "strided" => [Strided, Strided],
        "lstrided" => [Strided, Contiguous],
        "rstrided" => [Contiguous, Strided],
        "scalar" => [Scalar, Scalar],
        "cs" => [Contiguous, Scalar],
        "sc" => [Scalar, Contiguous],
        "rss" => [Scalar, Strided],
        "lss" => [Strided, Scalar],
        _ => return None,
    })
}

/// Two views, element by element: the number of elements, of dimensions, dimensions, strides of left and right, left,
/// right, result.
fn binary_strided(apply: Operator, element: Element, walks: [Walk; 2]) -> Option<Kernel> {
    Kernel::new([8, 7], move |call: &Call<'_>, output| {
        let (count, dims) = (call.number(0), call.numbers(2));
        call.covers("elements", call.sizes[2][0] * element.a_thread(), count);
        let strides = [3, 4].map(|index| call.numbers(index));
        let at = |side: usize, i: usize| match walks[side] {
            Walk::Strided => strided(i, &dims, &strides[side]),
            Walk::Contiguous => i,
            Walk::Scalar => 0,
        };
        for i in 0..count {
            let [left, right] = [0, 1].map(|side| element.get(call.bytes(5 + side), at(side, i)));
            element.set(output, i, apply(left, right));
        }
    })
}
