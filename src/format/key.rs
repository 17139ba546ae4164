//! Keys and values of the file map. Byte order of encoded keys is key order: inode number, kind, subkey.
