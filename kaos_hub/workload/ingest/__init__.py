"""Making a data bundle of files of the web, of FTP or of a store."""
