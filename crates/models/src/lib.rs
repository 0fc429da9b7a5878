//! Model families on Candle, one readable file each, and their loader.
