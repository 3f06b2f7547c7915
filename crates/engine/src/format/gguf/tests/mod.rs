mod header;
mod values;
mod written;
