/* Asks the C library for the address of a name, or of a.example.com. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
	char text[INET_ADDRSTRLEN];
	int error = getaddrinfo(argc > 1 ? argv[1] : "a.example.com", NULL, &hints, &found);

	if (error) {
		puts(gai_strerror(error));
		return 2;
	}
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof(text)));
	return 0;
}
