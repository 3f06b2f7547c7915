mod header;
mod lists;
mod values;
mod written;
