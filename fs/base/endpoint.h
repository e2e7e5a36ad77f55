/* Where and how to log in to a VM: plain data, passed from backends to fs/vm. */
#ifndef SBXFS_BASE_ENDPOINT_H
#define SBXFS_BASE_ENDPOINT_H

struct endpoint {
	char host[256];		/* numeric address or DNS name */
	int port;
	char user[64];
	char identity[1024];	/* path of the private key file */
	/*
	 * The pinned host key as in known_hosts without the host: "ssh-ed25519
	 * AAAA…". Empty is refused by fs/ssh: nothing is ever accepted unseen.
	 */
	char host_key[1024];
};

#endif
