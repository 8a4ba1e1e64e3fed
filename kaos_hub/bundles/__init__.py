"""A folder ⇄ a tree of content ⇄ a digest.

    tree         one directory as canonical text; digests
    limits       how large a bundle may be
    links        where symbolic links lead
    objects      reading content by digest
    walk         a whole tree, read from objects and checked
    scan         a folder on disk → tree
    lenient      folders that a program left → tree, without what cannot be kept
    ignore       what a scan leaves out
    source       the rules that make a folder a source or data bundle
    materialise  tree → a read-only folder on disk
    archive      tree ⇄ tar stream
    flat         tree → one listing and its files by number, as they are fetched over the wire

Everything here may meet a stranger's folder, tree or archive, so nothing is believed: names are
checked, links are never followed, content is hashed again, and every error names its entry.
"""
